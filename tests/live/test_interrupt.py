"""An error that completes in an interrupt belongs to no task; one that does not, to its task."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.cutting import MKFS_OPTIONS, cut, last_victim, write_victims
from fserr_bpf_compare.faults.extents import first_physical
from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import run, scratch
from tests.live.conftest import skip, wait_until

pytestmark = pytest.mark.root
CONFIG = Path("/sys/kernel/config")
SIZE = 64 << 10
# the name of the thread that runs soft interrupts for the first processor
DISGUISE = "ksoftirqd/0"
WRITE_IN_DISGUISE = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, b"{DISGUISE}")  # PR_SET_NAME, linux/prctl.h
file = os.open(sys.argv[1], os.O_WRONLY)
os.write(file, bytes(4096))
os.fsync(file)
"""


class InterruptDisk:
    """A null_blk device in memory that completes its requests from a timer's interrupt."""

    def __init__(self) -> None:
        self._folder = CONFIG / f"nullb/fserr{os.getpid()}"
        self._folder.mkdir()
        # irqmode 2 (NULL_IRQ_TIMER), drivers/block/null_blk/main.c
        for name, value in (
            ("size", "256"),
            ("memory_backed", "1"),
            ("irqmode", "2"),
            ("completion_nsec", "100000"),
            ("power", "1"),
        ):
            self.set(name, value)
        # Kernels before 6.1 know it by its number only.
        names = (self._folder.name, f"nullb{(self._folder / 'index').read_text().strip()}")
        present = [f"/dev/{name}" for name in names if os.path.exists(f"/dev/{name}")]
        self.device = present[0] if present else ""

    def set(self, name: str, value: str) -> None:
        (self._folder / name).write_text(value)

    def close(self) -> None:
        self.set("power", "0")
        self._folder.rmdir()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[InterruptDisk, Path]]:
    """An ext4 on such a device, mounted."""
    if subprocess.run(["modprobe", "null_blk", "nr_devices=0"], check=False).returncode:
        skip("this kernel has no null_blk module", expected=True)
    with ExitStack() as stack:
        if not os.path.ismount(CONFIG):
            run("mount", "-t", "configfs", "configfs", str(CONFIG))
        disk = InterruptDisk()
        stack.callback(disk.close)
        assert disk.device, "null_blk has made no device"
        run("mkfs.ext4", "-q", disk.device)
        run("mount", "-o", "errors=continue", disk.device, str(tmp_path))
        stack.callback(run, "umount", str(tmp_path))
        yield disk, tmp_path


def errors_of(monitor: Monitor) -> list[FsErrorEvent]:
    """What there is once an error has come."""
    events: list[FsErrorEvent] = []

    def collected() -> bool:
        events.extend(e for e in monitor.read_events() if isinstance(e, FsErrorEvent))
        return bool(events)

    wait_until(collected, "an error")
    return events


def test_an_interrupted_task_is_not_named(
    disk: tuple[InterruptDisk, Path], attached: AttachedProbes
) -> None:
    device, mount_point = disk
    file = mount_point / "victim"
    file.write_bytes(b"x" * SIZE)
    os.sync()
    first = first_physical(file) // 512
    device.set("badblocks", f"+{first}-{first + SIZE // 512 - 1}")
    with Monitor([Mark.filesystem(str(mount_point))], attached=attached) as monitor:
        with open(file, "r+b") as writer:
            writer.write(b"y" * SIZE)
            writer.flush()
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(writer.fileno())
        events = errors_of(monitor)
    assert {e.pid for e in events} == {0}
    assert {e.error for e in events} == {errno.EIO}
    assert {e.origin.comm for e in events if e.origin} == {""}


@pytest.mark.usefixtures("scratch_space")
def test_a_name_does_not_hide_who_caused_an_error(attached: AttachedProbes) -> None:
    """Anybody may be called ksoftirqd: only the kernel's own threads are it."""
    with scratch("ext4", mkfs_options=MKFS_OPTIONS["ext4"]) as fs:
        write_victims(fs)
        victim = last_victim(fs)
        marks = [Mark.filesystem(str(fs.mount_point))]
        with Monitor(marks, Stream.PROPOSED, attached=attached) as monitor:
            with cut(fs, victim):
                caused = run_child(sys.executable, "-c", WRITE_IN_DISGUISE, victim, path=victim)
            events = errors_of(monitor)
    assert "Input/output error" in caused.stderr
    assert {e.error for e in events} == {errno.EIO}
    assert {e.pid for e in events} == {caused.pid}
    assert {(e.origin.tid, e.origin.comm) for e in events if e.origin} == {(caused.pid, DISGUISE)}
