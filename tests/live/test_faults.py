"""Every fault of the table makes this kernel meet the error that the table promises."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.fault import Fault, TriggerProcess
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.live.conftest import (
    BY_NAME,
    KernelLog,
    emits,
    kernel_version,
    loop_devices_below,
    mount_points_below,
    require_mark,
    skip,
    wait_until,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]

UUID_TEXT = "11223344-5566-7788-99aa-bbccddeeff00"

# What the failing process says about each fault.
STDERR = {
    "ext4_bad_inode": "Structure needs cleaning",
    "ext4_bad_extent": "Structure needs cleaning",
    "ext4_htree_checksum": "Bad message",
    "ext4_bad_mode": "Structure needs cleaning",
    "ext4_inode_checksum": "Bad message",
    "ext4_block_bitmap": "Structure needs cleaning",
    "ext4_block_bitmap_checksum": "Bad message",
    "ext4_inode_bitmap_checksum": "No space left on device",
    "ext4_writeback": "fsync failed .*Input/output error",
    "xfs_agf": "Structure needs cleaning",
    "xfs_agi": "Structure needs cleaning",
    "xfs_attrblock": "Structure needs cleaning",
    "xfs_bmbt": "Structure needs cleaning",
    "xfs_bnobt": "Structure needs cleaning",
    "xfs_inode": "Structure needs cleaning",
    "xfs_dirblock": "Structure needs cleaning",
    "xfs_writeback": "fsync failed .*Input/output error",
}


def pid_is_exact() -> bool:
    """Since 7.0 a kernel worker reports the errors, so the pid is the worker's."""
    return kernel_version() < (7, 0)


def event_bytes(fsid: tuple[int, int], handle: bytes | None, error: int, pid: int) -> bytes:
    """The event, laid out by hand from ``linux/fanotify.h``; handles are ext4's."""
    handle_type, f_handle = (0xFF, b"") if handle is None else (1, handle)
    fid_len = 20 + len(f_handle)
    return (
        struct.pack("<IBBHQii", 24 + fid_len + 12, 3, 0, 24, 0x8000, -1, pid)
        + struct.pack("<BBHIIIi", 1, 0, fid_len, *fsid, len(f_handle), handle_type)
        + f_handle
        + struct.pack("<BBHiI", 5, 0, 12, error, 1)
    )


def ext4_fsid(uuid: str) -> tuple[int, int]:
    """``ext4_statfs()``: the two halves of the uuid, exclusive or."""
    low, high = struct.unpack("<QQ", UUID(uuid).bytes)
    return (low ^ high) & 0xFFFFFFFF, (low ^ high) >> 32


def ext4_handle(fs: Scratch, name: str) -> bytes:
    """Inode and generation of a file as debugfs reads them from the device."""
    said = subprocess.run(
        ["/sbin/debugfs", "-R", f"stat {name}", fs.device],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ino = re.search(r"Inode: (\d+)", said)
    generation = re.search(r"Generation: (\d+)", said)
    assert ino is not None
    assert generation is not None
    return struct.pack("<II", int(ino[1]), int(generation[1]))


def collect(group: FanotifyGroup, wanted: int) -> list[FsErrorEvent]:
    """Events of ``group`` until their counts reach ``wanted``; 0 takes what is there."""
    decoder = Decoder()
    events: list[FsErrorEvent] = []

    def enough() -> bool:
        for event in decoder.feed(group.read()):
            assert isinstance(event, FsErrorEvent)
            events.append(event)
        return sum(event.error_count for event in events) >= wanted

    wait_until(enough, f"{wanted} errors")
    decoder.close()
    return events


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(FAULTS)
    assert set(STDERR) <= set(BY_NAME)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_kernel_and_process_meet_the_error(fault: Fault) -> None:
    with KernelLog() as log:
        with scratch(fault.fstype) as fs:
            fault.prepare(fs)
            caused = fault.cause(fs)
        # of a message without an end of line the kernel lets nobody read before the next
        log.wait_for(fault.log.replace("{dev}", fs.device_name))
    stderr = STDERR.get(fault.name, r"^$")
    if fault.name == "ext4_abort" and kernel_version() < (5, 11):
        stderr = "mount point not mounted or bad option"  # the option itself fails there
    assert re.search(stderr, caused.stderr), caused


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_native_events_are_as_in_the_table(fault: Fault) -> None:
    require_mark()
    with scratch(fault.fstype) as fs, FanotifyGroup() as group:
        fault.prepare(fs)
        group.mark(str(fs.mount_point))
        caused = fault.cause(fs)
        expected = fault.expected if emits(fault) else ()
        if not expected and fault.fstype == "ext4":
            # Its own event comes last in the queue: whatever is before it is too much.
            marker = BY_NAME["ext4_trigger"]
            caused, expected = marker.cause(fs), marker.expected
        events = collect(group, len(expected))
    seen = {(event.error, "sb" if event.handle is None else "inode") for event in events}
    assert seen == {(error.error, error.form) for error in expected}
    if pid_is_exact():
        assert {event.pid for event in events} <= {caused.pid}


# The errors of ext4 that one operation reports exactly once.
@pytest.mark.parametrize(
    ("name", "victim", "error"),
    [
        ("ext4_trigger", None, 117),
        ("ext4_bad_inode", "victim", 117),
        ("ext4_bad_extent", "victim", 117),
        ("ext4_htree_checksum", "dir", 74),
        ("ext4_abort", None, 108),
    ],
)
def test_native_bytes(name: str, victim: str | None, error: int) -> None:
    require_mark()
    if not pid_is_exact():
        skip("the pid in the event is a kernel worker's", expected=True)
    fault = BY_NAME[name]
    with scratch("ext4", uuid=UUID_TEXT) as fs, FanotifyGroup() as group:
        fault.prepare(fs)
        handle = None if victim is None else ext4_handle(fs, victim)
        group.mark(str(fs.mount_point))
        caused = fault.cause(fs)
        seen = group.read()
        assert group.read() == b""
    assert seen == event_bytes(ext4_fsid(UUID_TEXT), handle, error, caused.pid)


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if fault.handle_reachable],
    ids=lambda fault: fault.name,
)
def test_reachable_handle_is_the_reported_one(fault: Fault) -> None:
    require_mark()
    with scratch(fault.fstype) as fs, FanotifyGroup() as group:
        fault.prepare(fs)
        group.mark(str(fs.mount_point))
        caused = fault.cause(fs)
        handle = syscalls.name_to_handle_at(caused.path)
        events = collect(group, int(emits(fault)))
    assert {event.handle for event in events} <= {(handle.handle_type, handle.f_handle)}
    assert bool(events) == emits(fault)


@pytest.mark.parametrize("name", ["ext4_writeback", "xfs_writeback"])
def test_only_data_is_hurt_by_a_failed_writeback(name: str) -> None:
    fault = BY_NAME[name]
    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        caused = fault.cause(fs)
        assert caused.returncode == 1
        # A journal or log that had failed would refuse this.
        descriptor = os.open(fs.mount_point / "after", os.O_RDWR | os.O_CREAT)
        os.write(descriptor, b"data")
        os.fsync(descriptor)
        os.close(descriptor)
        fs.remount_fresh()
        assert (fs.mount_point / "after").read_bytes() == b"data"
        if fault.fstype == "ext4":
            errors = Path(f"/sys/fs/ext4/{fs.device_name}/errors_count").read_text()
            assert errors == "0\n"


def test_each_cause_has_its_own_process() -> None:
    fault = BY_NAME["ext4_trigger"]
    with scratch("ext4") as fs:
        first: TriggerProcess = fault.cause(fs)
        second = fault.cause(fs)
    assert len({first.pid, second.pid, os.getpid()}) == 3
    assert first.comm == "sh"


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_scratch_leaves_nothing_after(
    fstype: str, error: type[BaseException], scratch_space: Path
) -> None:
    def fail_inside() -> None:
        with scratch(fstype) as fs:
            assert os.stat(fs.mount_point).st_dev == os.makedev(*fs.dev)
            assert mount_points_below(scratch_space) == [str(fs.mount_point)]
            assert loop_devices_below(scratch_space) == [fs.device_name]
            raise error

    with pytest.raises(error):
        fail_inside()
    # The fixture looks for what is left.


def test_scratch_leaves_nothing_of_a_cut_device() -> None:
    with scratch("ext4") as fs:
        fs.shrink_device(16 << 20)
        assert Path(f"/sys/block/{fs.device_name}/size").read_text() == "32768\n"


def test_scratch_busy_file_system_goes_when_its_user_does(scratch_space: Path) -> None:
    with scratch("ext4") as fs:
        busy = open(fs.mount_point / "busy", "w")  # noqa: SIM115 - outlives the scratch
    assert mount_points_below(scratch_space) == []
    assert loop_devices_below(scratch_space) == [fs.device_name]
    busy.close()
    wait_until(lambda: loop_devices_below(scratch_space) == [], "the loop device to go")
