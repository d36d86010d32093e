"""``fserr-bpf run`` over time: a reader that is slow, file systems that come and go."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from fserr_bpf.codec.fanotify import decode
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import wait_until, write_trigger
from tests.live.test_run_cli import Run, running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("fast_attaching")]
PIPE_SIZE = 4096


def cpu_ticks(monitor: Run) -> int:
    """User and system time of the process, in clock ticks (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{monitor.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_slow_reader_costs_nothing_and_loses_nothing(scratch_space: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    os.write(writer, b"x" * PIPE_SIZE)  # full: the reader is behind
    with scratch("ext4") as fs:
        path = str(fs.mount_point)
        with (
            os.fdopen(writer, "wb") as output,
            running(scratch_space, "--format", "raw", path, stdout=output) as monitor,
        ):
            write_trigger(fs.device_name, 1)
            before = cpu_ticks(monitor)
            deadline = time.monotonic() + 1
            pids = {write_trigger(fs.device_name, 7) for _ in range(3)}
            while time.monotonic() < deadline:
                time.sleep(0.05)
            # a monitor that polled in vain all the time would have used some hundred
            assert cpu_ticks(monitor) - before < 0.3 * os.sysconf("SC_CLK_TCK")
            assert os.read(reader, PIPE_SIZE) == b"x" * PIPE_SIZE
            counts: dict[int, int] = {}

            def all_read() -> bool:
                data = os.read(reader, PIPE_SIZE)
                while data:
                    event, end = decode(data)
                    assert isinstance(event, FsErrorEvent)
                    counts[event.pid] = counts.get(event.pid, 0) + event.error_count
                    data = data[end:]
                return sum(counts.values()) >= 22

            wait_until(all_read, "the events that waited")
            assert {counts[pid] for pid in pids} == {7}
            assert monitor.end(signal.SIGTERM)[0] == 0
        assert monitor.account()[0] == 22
    os.close(reader)


def test_new_mounts_are_followed_with_few_privileges(scratch_space: Path) -> None:
    with running(scratch_space) as monitor:
        kept = {Capability.DAC_READ_SEARCH}
        if not KPROBE_PMU.exists():
            kept.add(Capability.SYS_ADMIN)  # marks in the kernel's own group
        mask = sum(1 << capability for capability in kept)
        wait_until(lambda: int(monitor.status("CapEff"), 16) == mask, "the privileges to go")
        with scratch("ext4") as fs:
            wait_until(
                lambda: f"fserr-bpf: now watching {fs.mount_point} (ext4)" in monitor.lines(),
                "the new mount to be watched",
            )
            pid = write_trigger(fs.device_name, 1)
            assert monitor.process.stdout is not None
            lines = map(bytes.decode, monitor.process.stdout)
            # of every file system: whoever else has errors on this machine is heard too
            line = next(line for line in lines if f" {fs.mount_point} " in line)
            assert f" {fs.mount_point} EFSCORRUPTED 117 " in line
            if KPROBE_PMU.exists():
                assert f"[{pid}]" in line
        wait_until(
            lambda: f"fserr-bpf: no longer watching {fs.mount_point}: unmounted" in monitor.lines(),
            "the end of the mark",
        )
        assert monitor.end(signal.SIGTERM)[0] == 0
