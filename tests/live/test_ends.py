"""The end of a file system is told once, with its reason, beside the error that led to it."""

from __future__ import annotations

import errno
from contextlib import ExitStack

import pytest

from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults import mapper, removed
from fserr_bpf_compare.faults.ends import ENDS, End
from fserr_bpf_compare.faults.fault import Expected, run_child
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import KernelLog, kernel_version, skip, wait_until

pytestmark = [pytest.mark.root, pytest.mark.kprobes, pytest.mark.usefixtures("scratch_space")]

# the reasons that a vanished device may be told with: what is noticed first
LOST = {"device removed", "log I/O error", "metadata I/O error"}


def monitored(fs: Scratch, attached: AttachedProbes) -> Monitor:
    return Monitor([Mark.filesystem(str(fs.mount_point))], Stream.PROPOSED, attached=attached)


def is_end(event: FsErrorEvent) -> bool:
    return event.error == errno.ESHUTDOWN


class Events:
    """What a monitor gave so far."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.all: list[FsErrorEvent] = []

    def has_end(self) -> bool:
        self.all += [e for e in self._monitor.read_events() if isinstance(e, FsErrorEvent)]
        return any(map(is_end, self.all))

    def the_end(self) -> FsErrorEvent:
        """The only one, when it has come."""
        wait_until(self.has_end, "the end of the file system")
        (end,) = filter(is_end, self.all)
        return end


def reason_of(event: FsErrorEvent) -> str:
    assert event.origin is not None
    assert (event.handle, event.error_count) == (None, 1)
    return event.origin.reason


def require_types(probe: Probe, attached: AttachedProbes) -> None:
    if probe in attached.failed:
        skip(f"no end: {attached.failed[probe]}", expected=kernel_version() == (5, 10))


PROBE = {
    "ext4": Probe.EXT4_END,
    "xfs": Probe.XFS_END,
    "btrfs": Probe.BTRFS_END,
    "f2fs": Probe.F2FS_END,
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_an_end_is_told_once_with_its_reason(end: End, attached: AttachedProbes) -> None:
    if not end.untyped:
        require_types(PROBE[end.fstype], attached)
    with ExitStack() as stack:
        fs = stack.enter_context(
            scratch(end.fstype, mkfs_options=end.mkfs_options, mount_options=end.mount_options)
        )
        end.damage(fs)
        log = stack.enter_context(KernelLog())
        events = Events(stack.enter_context(monitored(fs, attached)))
        end.cause(fs)
        if end.log:
            log.wait_for(end.log.replace("{dev}", fs.device_name))
        last = events.the_end()
        run("umount", str(fs.mount_point))  # which is no end, and nothing comes after one
        assert events.has_end()
    seen = {Expected(e.error, "inode" if e.handle else "sb") for e in events.all}
    assert seen == end.expected()
    assert events.all[-1] is last
    assert sum(map(is_end, events.all)) == 1
    if not attached.kernel.abort or end.name != "ext4_end_abort":
        assert reason_of(last) == end.reason


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "f2fs", "btrfs"])
def test_unmounting_is_no_end(fstype: str, attached: AttachedProbes) -> None:
    with scratch(fstype) as fs, monitored(fs, attached) as monitor:
        (fs.mount_point / "file").write_bytes(b"x")
        fs.unmount()
        assert list(monitor.read_events()) == []


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs", "f2fs"])
def test_a_device_that_fails_ends_its_file_system(fstype: str, attached: AttachedProbes) -> None:
    if reason := mapper.unavailable():
        skip(reason, expected=True)
    require_types(PROBE[fstype], attached)
    with scratch(fstype) as fs, mapper.mapped(fs) as device:
        (fs.mount_point / "file").write_bytes(b"x" * 65536)
        with monitored(fs, attached) as monitor:
            events = Events(monitor)
            device.fail()
            path = str(fs.mount_point)
            run_child("sh", "-c", 'sync -f "$0"; touch "$0/file"; sync -f "$0"', path, path=path)
            assert reason_of(events.the_end()) in {"log I/O error", "metadata I/O error"}


# since when a vanished disk is noticed although nobody writes: ext4_shutdown(), xfs_fs_shutdown();
# the kernels between 6.1 and this one were not looked at
NOTICES = (6, 12)


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
@pytest.mark.parametrize("dirty", [False, True], ids=["idle", "dirty"])
def test_a_removed_disk_ends_its_file_system(
    fstype: str, dirty: bool, attached: AttachedProbes
) -> None:
    if reason := removed.unavailable():
        skip(reason, expected=True)
    require_types(PROBE[fstype], attached)
    if not dirty and kernel_version() < NOTICES:
        skip("this kernel does not tell a file system that its disk is gone", expected=True)
    with scratch(fstype) as fs, removed.on_disk(fs) as disk, monitored(fs, attached) as monitor:
        events = Events(monitor)
        path = str(fs.mount_point)
        if dirty:
            (fs.mount_point / "file").write_bytes(b"x" * 65536)
        disk.remove()
        if dirty:
            run_child("sh", "-c", 'sync -f "$0"; touch "$0/new"; sync -f "$0"', path, path=path)
        assert reason_of(events.the_end()) in LOST
