"""No error of a watched file system is in the kernel's log alone, unless the documents say so.

Ends and failing devices are events in test_ends.py and test_device_mapper.py.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.probes.coverage import UNSEEN
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.fault import EFSBADCRC, EFSCORRUPTED, Fault, run_child
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import KernelLog, skip, wait_until

pytestmark = [pytest.mark.root, pytest.mark.kprobes, pytest.mark.usefixtures("scratch_space")]

# what makes a line of the log about a device one about an error
ERROR = re.compile(
    r"error|corrupt|shut(?:ting)? ?down|read-?only|abort|invalid|warning|failed", re.IGNORECASE
)
# what is logged with every mount
HARMLESS = re.compile(r"mounted filesystem|Quota mode|recovery complete|log mount|Ending clean")


def is_listed(message: str, fstype: str) -> bool:
    """Whether docs/coverage.md says that there is no event for this line."""
    return any(
        one.fstype in ("", fstype) and one.log and re.search(one.log, message) for one in UNSEEN
    )


class Watched:
    """A monitor of a file system, the kernel's log, and what both have had."""

    def __init__(self, stack: ExitStack, fs: Scratch, attached: AttachedProbes) -> None:
        self._fs = fs
        self.log = stack.enter_context(KernelLog())
        marks = [Mark.filesystem(str(fs.mount_point))]
        self.monitor = stack.enter_context(Monitor(marks, attached=attached))
        self.events: list[FsErrorEvent] = []

    def read(self) -> bool:
        found = self.monitor.read_events()
        self.events += [event for event in found if isinstance(event, FsErrorEvent)]
        return bool(self.events)

    def errors_in_log(self) -> list[str]:
        name = re.compile(rf"\b{re.escape(self._fs.device_name)}\b")
        return [
            message
            for message in self.log.messages()
            if name.search(message) and ERROR.search(message) and not HARMLESS.search(message)
        ]

    def check(self) -> None:
        """The rule: an event, or every line is listed."""
        said = self.errors_in_log()
        assert said, "the fault has left nothing in the kernel's log"
        unlisted = [line for line in said if not is_listed(line, self._fs.fstype)]
        if unlisted:
            wait_until(self.read, f"an event for {unlisted[0]!r}")


@pytest.fixture(autouse=True)
def require_types(attached: AttachedProbes) -> None:
    if Probe.XFS_END in attached.failed:
        skip(f"the table says so: {attached.failed[Probe.XFS_END]}", expected=True)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_an_event_or_listed(fault: Fault, attached: AttachedProbes) -> None:
    with scratch(fault.fstype) as fs, ExitStack() as stack:
        fault.prepare(fs)
        watched = Watched(stack, fs, attached)
        fault.cause(fs)
        watched.log.wait_for(fault.log.replace("{dev}", fs.device_name))
        watched.check()


# file systems that have no row in the table of faults


def _bad_checksum(fs: Scratch) -> Callable[[], object]:
    """Data of a btrfs that does not fit its checksum."""
    content = b"fserr-bpf looks for this" * 4096
    (fs.mount_point / "victim").write_bytes(content)
    fs.unmount()
    place = fs.image.read_bytes().find(content[:4096])
    assert place >= 0
    fs.overwrite(place, b"\xff" * 16)
    fs.mount()
    path = str(fs.mount_point / "victim")
    return lambda: run_child("cat", path, path=path)


def _bad_address(fs: Scratch) -> Callable[[], object]:
    """A block of a file of f2fs that is not on the device (struct f2fs_inode)."""
    name = b"victim"
    (fs.mount_point / name.decode()).write_bytes(b"x" * 65536)  # more than is kept in the inode
    fs.unmount()
    image, begin = fs.image.read_bytes(), 0
    label = len(name).to_bytes(4, "little") + name
    inodes = []
    while (begin := image.find(label, begin) + 1) > 0:
        if (begin - 1 - 88) % 4096 == 0:  # i_namelen
            inodes.append(begin - 1 - 88)
    assert inodes
    for inode in inodes:  # there may be older versions
        fs.overwrite(inode + 348, bytes(12) + (0x7FFFFFFF).to_bytes(4, "little"))  # i_ext, i_addr
    fs.mount()
    path = str(fs.mount_point / "victim")
    return lambda: run_child("cat", path, path=path)


def _bad_chain(image: Path, device: str, mount_point: Path) -> Callable[[], object]:
    """A chain of clusters of a FAT that leads nowhere."""
    (mount_point / "victim").write_bytes(b"x" * 65536)
    run("umount", str(mount_point))
    with image.open("r+b") as disk:
        disk.seek(14)
        fat = int.from_bytes(disk.read(2), "little") * 512
        disk.seek(fat)
        entries = memoryview(disk.read(4096)).cast("H")
        first = next(n for n in range(2, len(entries)) if entries[n])
        disk.seek(fat + 2 * first)
        disk.write((1).to_bytes(2, "little"))
    run("mount", "-t", "vfat", device, str(mount_point))
    path = str(mount_point / "victim")
    return lambda: run_child("cat", path, path=path)


def test_a_wrong_checksum_of_btrfs(attached: AttachedProbes) -> None:
    with scratch("btrfs") as fs, ExitStack() as stack:
        cause = _bad_checksum(fs)
        watched = Watched(stack, fs, attached)
        cause()
        wait_until(watched.read, "the error")
        watched.check()
    assert {(event.error, event.handle) for event in watched.events} == {(EFSBADCRC, None)}


def test_a_bad_address_of_f2fs(attached: AttachedProbes) -> None:
    if Probe.F2FS_ERROR in attached.failed:
        skip(attached.failed[Probe.F2FS_ERROR], expected=True)
    with scratch("f2fs") as fs, ExitStack() as stack:
        cause = _bad_address(fs)
        watched = Watched(stack, fs, attached)
        cause()
        wait_until(watched.read, "the error")
        watched.check()
    assert (EFSCORRUPTED, None) in {(event.error, event.handle) for event in watched.events}


def test_a_bad_chain_of_fat(attached: AttachedProbes, tmp_path: Path) -> None:
    if Probe.FAT_ERROR in attached.failed:
        skip(attached.failed[Probe.FAT_ERROR], expected=True)
    image, mount_point = tmp_path / "image", tmp_path / "fat"
    mount_point.mkdir()
    image.write_bytes(b"")
    with image.open("r+b") as disk:
        disk.truncate(32 << 20)
    run("mkfs.vfat", "-F", "16", str(image))
    device = run("losetup", "--find", "--show", str(image)).strip()
    try:
        run("mount", "-t", "vfat", device, str(mount_point))
        cause = _bad_chain(image, device, mount_point)
        marks = [Mark.filesystem(str(mount_point))]
        with KernelLog() as log, Monitor(marks, attached=attached) as m:
            cause()
            log.wait_for(rf"FAT-fs \({Path(device).name}\): error")
            events: list[FsErrorEvent] = []

            def read() -> bool:
                events.extend(e for e in m.read_events() if isinstance(e, FsErrorEvent))
                return bool(events)

            wait_until(read, "the error")
        assert {event.error for event in events} <= {EFSCORRUPTED, errno.EIO}
        assert events[0].error == EFSCORRUPTED
    finally:
        run("umount", str(mount_point))
        run("losetup", "--detach", device)
