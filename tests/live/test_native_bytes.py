"""The native stream beside a real group: the same bytes from the same errors.

Both are opened on the same file systems before the errors and read after them, so
the kernel itself says what is right.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compare.faults import FAULTS
from compare.faults.fault import Fault
from compare.scratch import Scratch, scratch
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import MarkError
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.fanotify import FanotifyGroup, kernel_accepts_fs_error
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from tests.live.conftest import (
    BY_NAME,
    emits,
    kernel_version,
    require_mark,
    skip,
    wait_until,
    write_trigger,
)
from tests.live.test_faults import UUID_TEXT, event_bytes, ext4_fsid, ext4_handle

pytestmark = [
    pytest.mark.root,
    pytest.mark.kprobes,
    pytest.mark.usefixtures("scratch_space"),
]

MAX_QUEUED_EVENTS = Path("/proc/sys/fs/fanotify/max_queued_events")
TRIGGER = BY_NAME["ext4_trigger"]
OVERFLOW = bytes.fromhex("18000000 03001800 00400000 00000000 ffffffff 00000000")


def from_workers() -> bool:
    """Since 7.0 kernel workers deliver, some time after the error and with their own pids."""
    return kernel_version() >= (7, 0)


def require_exact_events() -> None:
    if from_workers():
        skip("kernel workers decide here how errors become events", expected=True)


class Pair:
    """A real group and a monitor with the same marks."""

    def __init__(self, group: FanotifyGroup, monitor: Monitor) -> None:
        self.group = group
        self.monitor = monitor

    def read(self, *, empty: bool = False, size: int = 65536) -> bytes:
        """What read(2) gives on both, which must be the same."""
        theirs, ours = self.group.read(size), self.monitor.read(size)
        if from_workers() and not empty:

            def same() -> bool:
                nonlocal theirs, ours
                theirs, ours = theirs + self.group.read(size), ours + self.monitor.read(size)
                return theirs != b"" and theirs == ours

            wait_until(same, "the kernel's worker")
        assert ours.hex(" ", 4) == theirs.hex(" ", 4)
        assert (theirs == b"") == empty
        return theirs

    def errors(self) -> list[FsErrorEvent]:
        """What read(2) gives on both, decoded."""
        events: list[Event] = list(Decoder().feed(self.read()))
        return [event for event in events if isinstance(event, FsErrorEvent)]


@contextmanager
def pair(armed: Armed, *marked: Scratch, max_events: int = 16384) -> Iterator[Pair]:
    """Both, marking the file systems ``marked``, with a queue of ``max_events``."""
    require_mark()
    before = MAX_QUEUED_EVENTS.read_text()
    MAX_QUEUED_EVENTS.write_text(f"{max_events}\n")
    try:
        group = FanotifyGroup()  # takes the limit over
    finally:
        MAX_QUEUED_EVENTS.write_text(before)
    paths = [str(fs.mount_point) for fs in marked]
    marks = [Mark.filesystem(path) for path in paths]
    with group, Monitor(marks, Stream.NATIVE, max_events=max_events, armed=armed) as monitor:
        for path in paths:
            group.mark(path)
        yield Pair(group, monitor)


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if fault.fstype == "ext4" or emits(fault)],
    ids=lambda fault: fault.name,
)
def test_every_fault(fault: Fault, armed: Armed) -> None:
    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        with pair(armed, fs) as both:
            fault.cause(fs)
            both.read(empty=not emits(fault))
            both.read(empty=True)


def test_processes_stay_apart_and_one_process_merges(armed: Armed) -> None:
    require_exact_events()
    with scratch("ext4") as fs, pair(armed, fs) as both:
        pids = [write_trigger(fs.device_name, times) for times in (1, 2)]
        seen = [(event.pid, event.error_count) for event in both.errors()]
        assert seen == [(pids[0], 1), (pids[1], 2)]


def test_one_call_may_report_many_errors(armed: Armed) -> None:
    """The readahead meets the broken extent tree once per block."""
    fault = BY_NAME["ext4_bad_extent"]
    with scratch("ext4") as fs:
        fault.prepare(fs)
        with pair(armed, fs) as both:
            with pytest.raises(OSError, match="Input/output error"):
                (fs.mount_point / "victim").read_bytes()
            assert sum(event.error_count for event in both.errors()) > 1


def test_two_file_systems_share_one_queue(armed: Armed) -> None:
    require_exact_events()
    listing = BY_NAME["ext4_htree_checksum"]
    with scratch("ext4") as first, scratch("ext4") as second, scratch("ext4") as unmarked:
        listing.prepare(second)
        with pair(armed, first, second) as both:
            pids = [TRIGGER.cause(first).pid, listing.cause(second).pid]
            TRIGGER.cause(unmarked)
            pids += [TRIGGER.cause(second).pid, TRIGGER.cause(first).pid]
            events = both.errors()
    assert [event.pid for event in events] == pids
    fsids = [event.fsid for event in events]
    assert fsids[0] == fsids[3] != fsids[1] == fsids[2]


def test_overflow(armed: Armed) -> None:
    require_exact_events()
    with scratch("ext4") as fs, pair(armed, fs, max_events=3) as both:
        for _ in range(2):  # reading makes room for the next overflow
            for _ in range(5):
                TRIGGER.cause(fs)
            data = both.read()
            assert len(data) == 3 * 56 + 24
            assert data[3 * 56 :] == OVERFLOW


def test_full_queue_does_not_merge(armed: Armed) -> None:
    require_exact_events()
    with scratch("ext4") as fs, pair(armed, fs, max_events=1) as both:
        write_trigger(fs.device_name, 3)
        data = both.read()
        assert data[52:56] == b"\1\0\0\0"
        assert data[56:] == OVERFLOW


def test_event_that_does_not_fit_stays(armed: Armed) -> None:
    require_exact_events()
    with scratch("ext4") as fs, pair(armed, fs) as both:
        for _ in range(2):
            TRIGGER.cause(fs)
        for size in (0, 24, 55):
            for side in (both.group, both.monitor):
                with pytest.raises(OSError, match="Invalid argument") as refused:
                    side.read(size)
                assert refused.value.errno == errno.EINVAL
        assert len(both.read(size=2 * 56 - 1)) == 56
        assert len(both.read(size=56)) == 56
        both.read(empty=True)


@pytest.mark.parametrize("option", ["errors=remount-ro", "errors=continue"])
def test_errors_after_the_first(option: str, armed: Armed) -> None:
    """Since 6.12 an ext4 that errors have made read-only reports no more of them."""
    silent = option == "errors=remount-ro" and kernel_version() >= (6, 12)
    options = (option, "noinit_itable")
    with scratch("ext4", mount_options=options) as fs, pair(armed, fs) as both:
        TRIGGER.cause(fs)
        both.read()
        TRIGGER.cause(fs)
        both.read(empty=silent)


def test_unmounting_ends_both_marks(armed: Armed) -> None:
    with scratch("ext4") as fs, pair(armed, fs) as both:
        TRIGGER.cause(fs)
        if from_workers():
            both.read()
        fs.remount_fresh()
        TRIGGER.cause(fs)
        both.read(empty=from_workers())
        both.read(empty=True)


def test_refused_mark_is_emulated_all_the_same(armed: Armed) -> None:
    """5.10 before 5.10.220: no real group can be had, so the bytes are laid out by hand."""
    if kernel_accepts_fs_error():
        skip("this kernel accepts the mark", expected=True)
    fault = BY_NAME["ext4_bad_inode"]
    with scratch("ext4", uuid=UUID_TEXT) as fs:
        fault.prepare(fs)
        handle, path = ext4_handle(fs, "victim"), str(fs.mount_point)
        with FanotifyGroup() as group:
            with pytest.raises(MarkError) as refused:
                group.mark(path)
            assert isinstance(refused.value.__cause__, OSError)
            assert refused.value.__cause__.errno == errno.EINVAL
        with Monitor([Mark.filesystem(path)], Stream.NATIVE, armed=armed) as monitor:
            pid = fault.cause(fs).pid
            seen = monitor.read()
            assert monitor.read() == b""
    assert seen == event_bytes(ext4_fsid(UUID_TEXT), handle, 117, pid)
