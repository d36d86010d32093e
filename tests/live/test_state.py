"""The state of real file systems, each broken for real; what can be done with it is the witness."""

from __future__ import annotations

import errno
import subprocess
import time

import pytest

from fserr_bpf.kernel.ext4 import options_tell
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.model.state import Condition
from fserr_bpf.state.look import look
from fserr_bpf.state.superblocks import superblock_at, superblocks
from fserr_bpf.uapi.errno import EFSCORRUPTED
from fserr_bpf_compare.faults import removed
from fserr_bpf_compare.faults.scratch import run
from tests.live.conftest import (
    KernelLog,
    skip,
    wait_until,
    write_trigger,
)
from tests.live.states import DEAD, PATIENCE, made, repair, shut_down, state, write_error

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs", "f2fs"])
def test_well_and_asked_for(fstype: str) -> None:
    with made(fstype) as fs:
        assert (state(fs).condition, state(fs).ok, state(fs).reason) == (Condition.OK, True, "")
        assert write_error(fs) == 0
        run("mount", "-o", "remount,ro", str(fs.mount_point))
        assert (state(fs).condition, state(fs).ok) == (Condition.READ_ONLY, True)
        assert write_error(fs) == errno.EROFS
        fs.unmount()
        fs.mount("ro")
        assert (state(fs).condition, state(fs).ok) == (Condition.READ_ONLY, True)


def test_ext4_error_is_on_record_until_it_is_repaired() -> None:
    with made("ext4", "errors=continue") as fs:
        before = int(time.time())
        write_trigger(fs.device_name, 3)
        wait_until(lambda: state(fs).errors == 3, "the superblock to have the errors")
        found = state(fs)
        assert found.condition is Condition.ERRORS
        assert write_error(fs) == 0
        assert found.first is not None
        assert found.first.function == "trigger_test_error"
        assert found.first.error == EFSCORRUPTED
        assert before <= found.first.time <= int(time.time())
        fs.unmount()
        fs.mount()
        assert (state(fs).condition, state(fs).errors) == (Condition.ERRORS, 3)
        fs.unmount()
        repair(fs)
        fs.mount()
        assert (state(fs).condition, state(fs).errors) == (Condition.OK, 0)


def test_ext4_that_makes_itself_read_only_tells() -> None:
    """Linux 6.12 to 6.14 and late 6.1 show nothing of it in the mount table."""
    with made("ext4", "errors=remount-ro") as fs:
        write_trigger(fs.device_name, 1)
        wait_until(lambda: state(fs).condition in DEAD, "the state to tell")
        assert state(fs).errors == 1
        assert write_error(fs) in (errno.EROFS, errno.EIO)
        fs.unmount()
        repair(fs)
        fs.mount()
        assert state(fs).condition is Condition.OK


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "f2fs"])
def test_shut_down_tells_and_is_over_with_the_next_mount(fstype: str) -> None:
    with made(fstype) as fs:
        shut_down(fs)
        assert state(fs).condition is Condition.SHUTDOWN
        assert write_error(fs) == errno.EIO
        fs.unmount()
        fs.mount()
        assert state(fs).condition is Condition.OK


def test_xfs_whose_log_cannot_be_written_is_shut_down() -> None:
    with made("xfs") as fs, KernelLog() as log:
        fs.shrink_device(1 << 20)
        assert write_error(fs) == errno.EIO
        assert state(fs).condition is Condition.SHUTDOWN
        log.wait_for(rf"XFS \({fs.device_name}\): (log I/O error|.*[Ss]hutting down filesystem)")
        # it is in the list of all too
        (listed,) = (s for s in look(superblocks(read_mounts()), PATIENCE) if s.dev == fs.dev)
        assert listed.condition is Condition.SHUTDOWN


def test_btrfs_after_a_fatal_error_has_counted() -> None:
    with made("btrfs") as fs:
        fs.shrink_device(1 << 20)
        (fs.mount_point / "victim").write_bytes(b"x" * (1 << 20))
        assert subprocess.run(["sync", "-f", str(fs.mount_point)], check=False).returncode != 0
        wait_until(lambda: state(fs).condition in DEAD, "the forced read-only")
        found = state(fs)
        assert found.condition is Condition.READ_ONLY_AFTER_ERROR
        assert [device.device for device in found.devices] == [fs.device]
        assert found.errors == found.devices[0].write + found.devices[0].flush > 0
        run("mount", "-o", "remount,ro", str(fs.mount_point))  # hides nothing
        assert state(fs).condition is Condition.READ_ONLY_AFTER_ERROR
        # what remains of it cannot be mounted again, and need not


def test_device_that_was_removed_is_gone() -> None:
    if reason := removed.unavailable():
        skip(reason, expected=True)
    with made("ext4") as fs, removed.on_disk(fs) as disk:
        disk.remove()
        (gone,) = look([superblock_at(str(fs.mount_point))], PATIENCE)
    assert (gone.condition, gone.device, gone.ok) == (Condition.GONE, disk.name, False)


def test_options_tell_is_what_the_kernel_shows() -> None:
    with made("ext4") as fs:
        shut_down(fs)
        shown = next(m for m in read_mounts() if m.dev == fs.dev).super_options.split(",")
        assert ("shutdown" in shown) == options_tell()
