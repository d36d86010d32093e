"""A loop device on a full tmpfs: data that was accepted and cannot be stored any more."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.kernel import syscalls
from fserr_bpf.model.event import FileHandle, FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.scratch import run, scratch
from tests.live.conftest import wait_until

pytestmark = pytest.mark.root
ROOM = 400 << 20
SIZE = 16 << 20


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tmpfs for the images of scratch file systems."""
    run("mount", "-t", "tmpfs", "-o", f"size={ROOM}", "fserr-test", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        yield tmp_path
    finally:
        run("umount", str(tmp_path))


def resize(disk: Path, size: int) -> None:
    run("mount", "-o", f"remount,size={size}", str(disk))


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_writeback_to_a_full_disk(fstype: str, small_disk: Path, attached: AttachedProbes) -> None:
    events: list[FsErrorEvent] = []
    with scratch(fstype) as fs, open(fs.mount_point / "victim", "wb") as file:
        handle = syscalls.name_to_handle_at(file.name)
        os.sync()
        usage = os.statvfs(small_disk)
        with Monitor([Mark.filesystem(str(fs.mount_point))], attached=attached) as monitor:
            resize(small_disk, (usage.f_blocks - usage.f_bfree) * usage.f_bsize)
            try:
                file.write(os.urandom(SIZE))
                file.flush()
                with pytest.raises(OSError, match=r"No space|Input/output") as failed:
                    os.fsync(file.fileno())
            finally:
                resize(small_disk, ROOM)

            def reported() -> bool:
                new = (e for e in monitor.read_events() if isinstance(e, FsErrorEvent))
                events.extend(e for e in new if e.handle == FileHandle(*handle[:2]))
                return bool(events)

            wait_until(reported, "the file's writeback error")
        # fsync(2) returns what the error sequence of the mapping holds: the same number
        assert failed.value.errno in (errno.ENOSPC, errno.EIO)
        assert failed.value.errno in {e.error for e in events}
