"""An error that completes in an interrupt belongs to no task: pid 0, merged as one."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from compare.extents import first_physical
from compare.scratch import run
from fserr_bpf.live.armed import Armed
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.monitor import Monitor
from tests.live.conftest import skip, wait_until

pytestmark = pytest.mark.root
CONFIG = Path("/sys/kernel/config")
SIZE = 64 << 10


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


def test_interrupted_bystander_is_not_named(disk: tuple[InterruptDisk, Path], armed: Armed) -> None:
    device, mount_point = disk
    file = mount_point / "victim"
    file.write_bytes(b"x" * SIZE)
    os.sync()
    first = first_physical(file) // 512
    device.set("badblocks", f"+{first}-{first + SIZE // 512 - 1}")
    with Monitor([Mark.filesystem(str(mount_point))], armed=armed) as monitor:
        with open(file, "r+b") as writer:
            writer.write(b"y" * SIZE)
            writer.flush()
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(writer.fileno())
        events: list[FsErrorEvent] = []

        def collected() -> bool:
            events.extend(e for e in monitor.read_events() if isinstance(e, FsErrorEvent))
            return bool(events)

        wait_until(collected, "the interrupt's error")
    assert {e.pid for e in events} == {0}
    assert {e.error for e in events} == {errno.EIO}
    assert {e.origin.comm for e in events if e.origin} == {""}
