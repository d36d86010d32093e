"""Many errors in a tight loop, and where each of them went.

As a program (``python -m fserr_bpf_compare.bench.flood NAME ERRORS``) it prints the outcome as one
JSON object: this is how a flood runs under another kernel in the lab.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf.model.event import FsErrorEvent, OverflowEvent
from fserr_bpf_compare.bench.measured import measured
from fserr_bpf_compare.faults.extents import first_physical
from fserr_bpf_compare.faults.scratch import Scratch, scratch

_PAGE = 4096
_WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER, linux/fs.h


@dataclass(frozen=True)
class Outcome:
    """Counts of errors, but ``events`` and ``overflows``; seconds; bytes of memory.

    ``injected`` is what the loop caused, ``summed`` the sum of error_count in what
    was written. ``cpu`` is the monitor's own time for it.
    """

    injected: int
    summed: int
    ring_full: int
    dropped: int
    missed: int
    events: int
    overflows: int
    seconds: float
    cpu: float
    memory: int

    @property
    def accounted(self) -> bool:
        """Every error is in an event or in a counter, and a loss is in the stream."""
        exact = self.summed + self.dropped == self.injected and not self.missed
        return exact and (not self.ring_full or self.overflows > 0)


@dataclass(frozen=True)
class Flood:
    """``cause`` makes ext4 meet the given number of errors, a multiple of ``unit``.

    ``prepare`` comes before the monitor; ``mkfs_options`` are for mkfs.ext4.
    """

    unit: int
    prepare: Callable[[Scratch], None]
    cause: Callable[[Scratch, int], float]
    mkfs_options: tuple[str, ...] = ()


def _nothing(_fs: Scratch) -> None:
    """The healthy file system will do."""


def _trigger(fs: Scratch, errors: int) -> float:
    descriptor = os.open(f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error", os.O_WRONLY)
    try:
        begin = time.perf_counter()
        for _ in range(errors):
            os.write(descriptor, b"1")
        return time.perf_counter() - begin
    finally:
        os.close(descriptor)


def _victim(fs: Scratch) -> Path:
    return fs.mount_point / "victim"


def _write_victim(fs: Scratch) -> None:
    _victim(fs).write_bytes(bytes(_PAGE))
    fs.remount_fresh()


def _write_back(fs: Scratch, errors: int) -> float:
    """Write a page behind the end of the device: ext4_end_bio() reports bio and page."""
    library = ctypes.CDLL(None, use_errno=True)
    library.sync_file_range.argtypes = [
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_uint,
    ]
    page = bytes(_PAGE)
    fs.shrink_device(first_physical(_victim(fs)))
    descriptor = os.open(_victim(fs), os.O_WRONLY)
    try:
        begin = time.perf_counter()
        for _ in range(errors // 2):
            os.pwrite(descriptor, page, 0)
            if library.sync_file_range(descriptor, 0, 0, _WRITE_AND_WAIT) == 0:
                raise LabError("flood: writing beyond the end of the device did not fail")
        return time.perf_counter() - begin
    finally:
        os.close(descriptor)
        fs.restore_device()


FLOODS = {
    "trigger": Flood(1, _nothing, _trigger),
    # keeps the journal in front of the data, out of reach of the cut
    "writeback": Flood(2, _write_victim, _write_back, ("-E", "packed_meta_blocks=1")),
}


def run(name: str, errors: int) -> Outcome:
    """Flood a scratch ext4 that ``fserr-bpf run`` watches. Raises LabError."""
    flood = FLOODS[name]
    injected = errors - errors % flood.unit
    with (
        scratch("ext4", mkfs_options=flood.mkfs_options) as fs,
        tempfile.TemporaryDirectory() as folder,
    ):
        flood.prepare(fs)
        with measured(fs.mount_point, Path(folder) / "events") as monitor:
            before = monitor.cpu()
            seconds = flood.cause(fs, injected)
            # what still waits is written after the signal: then the process is gone
            memory, cpu = monitor.memory("VmHWM"), monitor.cpu() - before
            events, counts = monitor.stop()
    return Outcome(
        injected=injected,
        summed=sum(event.error_count for event in events if isinstance(event, FsErrorEvent)),
        ring_full=counts.ring_full,
        dropped=counts.dropped,
        missed=counts.missed,
        events=len(events),
        overflows=sum(isinstance(event, OverflowEvent) for event in events),
        seconds=seconds,
        cpu=cpu,
        memory=memory,
    )


def main(arguments: Sequence[str]) -> None:
    """Print the outcome of one flood."""
    name, errors = arguments
    print(json.dumps(asdict(run(name, int(errors)))))


if __name__ == "__main__":
    main(sys.argv[1:])
