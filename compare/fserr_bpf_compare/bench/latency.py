"""How long an error takes from the kernel to the output of ``fserr-bpf run``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.errors import LabError
from fserr_bpf_compare.bench.measured import measured
from fserr_bpf_compare.faults.scratch import scratch

_ERRORS = 300
_TIMEOUT = 10.0  # seconds, for one error


class Latency(NamedTuple):
    """Seconds from just before the error until its event is in the output."""

    median: float
    p99: float


def latency() -> Latency:
    """Cause ext4 errors one after the other, each when the last one has been written."""
    with scratch("ext4") as fs, tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "events"
        trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
        with measured(fs.mount_point, output) as monitor, open(trigger, "wb", buffering=0) as file:
            found = [_one(file.fileno(), output) for _ in range(_ERRORS)]
            monitor.stop()
    return Latency(statistics.median(found), sorted(found)[_ERRORS * 99 // 100])


def _one(trigger: int, output: Path) -> float:
    before = output.stat().st_size
    begin = time.perf_counter()
    os.pwrite(trigger, b"x", 0)
    while output.stat().st_size == before:
        if time.perf_counter() > begin + _TIMEOUT:
            raise LabError(f"latency: no event arrived within {_TIMEOUT:g} s")
    return time.perf_counter() - begin


@contextmanager
def resolving(tree: Path) -> Iterator[None]:
    """Meanwhile places of ``tree`` are resolved all the time, each time without an index."""
    loop = (
        'while :; do "$0" -m fserr_bpf_compare.bench.symbolbench "$1" xfs >/dev/null || exit; done'
    )
    command = ["sh", "-c", loop, sys.executable, str(tree)]
    with subprocess.Popen(command, start_new_session=True) as busy:
        try:
            yield
            if busy.poll() is not None:
                raise LabError("latency: the process that resolves places ended early")
        finally:
            os.killpg(busy.pid, 9)
