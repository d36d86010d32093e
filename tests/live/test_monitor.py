"""The monitor on whatever this kernel has: kprobes, or tracepoints and the kernel's own group."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import select
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.group.source import Source
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.kernel import syscalls
from fserr_bpf.model.event import FsErrorEvent, Origin, OverflowEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.fault import Fault
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.live.conftest import (
    BY_NAME,
    KernelLog,
    require_seen,
    skip,
    wait_until,
    write_trigger,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]

TRIGGER = BY_NAME["ext4_trigger"]
XFS_METADATA = ("xfs_agf", "xfs_inode", "xfs_dirblock")
COUNT = 97


@contextmanager
def watch(
    attached: AttachedProbes,
    *marked: Scratch,
    stream: Stream = Stream.PROPOSED,
    max_events: int | None = None,
) -> Iterator[Monitor]:
    marks = [Mark.filesystem(str(fs.mount_point)) for fs in marked]
    with Monitor(marks, stream, max_events=max_events, attached=attached) as monitor:
        yield monitor


def errors(monitor: Monitor) -> list[FsErrorEvent]:
    """The errors that wait; there must be nothing else."""
    events = []
    for event in monitor.read_events():
        assert isinstance(event, FsErrorEvent)
        events.append(event)
    return events


def wait_for_errors(monitor: Monitor, wanted: int = 1) -> list[FsErrorEvent]:
    """Events until their counts reach ``wanted``: kernel workers may report late."""
    events: list[FsErrorEvent] = []

    def enough() -> bool:
        events.extend(errors(monitor))
        return sum(event.error_count for event in events) >= wanted

    wait_until(enough, f"{wanted} errors")
    return events


def pumped(monitor: Monitor) -> int:
    """Errors of the marked file systems that have come as far as the queue."""
    monitor.pump()
    statistics = monitor.statistics()
    return (
        statistics.seen
        - statistics.dropped[DropReason.NOT_MARKED]
        - statistics.dropped[DropReason.NOT_IN_STREAM]
    )


def origin(event: FsErrorEvent) -> Origin:
    assert event.origin is not None
    return event.origin


def forms(events: Iterable[FsErrorEvent]) -> set[tuple[int, str]]:
    return {(event.error, "sb" if event.handle is None else "inode") for event in events}


def tells_owner_of_buffer(attached: AttachedProbes) -> bool:
    """Whether XFS's health code, 6.9 and later, says whose buffer is corrupt."""
    return attached.kernel.sick or attached.kernel.fserror


def readable(monitor: Monitor) -> bool:
    return select.select([monitor], [], [], 0)[0] == [monitor]


def wait_until_silent(monitor: Monitor) -> None:
    """Other file systems of this machine may have errors too; nothing of them may stay."""

    def silent() -> bool:
        monitor.pump()
        return len(monitor) == 0 and not readable(monitor)

    wait_until(silent, "the descriptor to fall silent")


# what an event says


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if fault.handle_reachable],
    ids=lambda fault: fault.name,
)
def test_handle_is_the_one_of_name_to_handle_at(fault: Fault, attached: AttachedProbes) -> None:
    stream = Stream.PROPOSED
    if fault.name == "xfs_dirblock":
        if not tells_owner_of_buffer(attached):
            skip("a bad buffer has an inode only where the health code tells which", expected=True)
        stream = Stream.FSERROR
    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        with watch(attached, fs, stream=stream) as monitor:
            caused = fault.cause(fs)
            handle = syscalls.name_to_handle_at(caused.path)
            events = wait_for_errors(monitor)
    assert {event.handle for event in events} == {(handle.handle_type, handle.f_handle)}
    assert {event.error for event in events} == {expected.error for expected in fault.expected}
    assert {origin(event).fstype for event in events} == {fault.fstype}


@pytest.mark.parametrize(
    "name", ["ext4_trigger", "ext4_bad_inode", "ext4_bad_extent", "ext4_htree_checksum"]
)
def test_ext4_event_agrees_with_the_kernel_log(name: str, attached: AttachedProbes) -> None:
    fault = BY_NAME[name]
    with scratch("ext4") as fs, KernelLog() as log:
        fault.prepare(fs)
        with watch(attached, fs) as monitor:
            caused = fault.cause(fs)
            (event,) = wait_for_errors(monitor)
        pattern = rf"EXT4-fs error \(device {fs.device_name}\): (\w+):(\d+): (?:inode #(\d+): )?"
        log.wait_for(pattern)
        said = next(filter(None, (re.search(pattern, line) for line in log.messages())))
        seen = origin(event)
        assert (seen.device, seen.dev) == (fs.device_name, fs.dev)
        assert seen.mount_point == str(fs.mount_point)
    assert (seen.function, seen.line) == (said[1], int(said[2]))
    assert (event.pid, seen.tid, seen.comm) == (caused.pid, caused.pid, caused.comm)
    assert forms([event]) == {(expected.error, expected.form) for expected in fault.expected}
    if attached.kernel.kprobes:
        assert seen.ino == int(said[3] or 0)
        assert seen.source in {"kprobe:__ext4_error", "kprobe:__ext4_error_inode"}
    else:
        assert seen.source == "fanotify:FAN_FS_ERROR+raw_tracepoint:ext4_error"


@pytest.mark.parametrize("name", XFS_METADATA)
def test_xfs_corruption_is_one_event_with_the_verifiers_name(
    name: str, attached: AttachedProbes
) -> None:
    fault = BY_NAME[name]
    require_seen(fault, attached)
    with scratch("xfs") as fs, KernelLog() as log:
        fault.prepare(fs)
        with watch(attached, fs) as monitor:
            fault.cause(fs)
            (event,) = wait_for_errors(monitor)
            monitor.pump()
            assert len(monitor) == 0
        pattern = rf"XFS \({fs.device_name}\): Metadata (\w+)(?: error)? detected at ([\w.]+)"
        log.wait_for(pattern)
        said = next(filter(None, (re.search(pattern, line) for line in log.messages())))
    assert event.error_count == 1
    assert event.error == {"CRC": errno.EBADMSG, "corruption": errno.EUCLEAN}[said[1]]
    if name == "xfs_inode" and not attached.kernel.kprobes:
        # only the tracepoint of the health code sees it, which has no address
        assert origin(event).source == "raw_tracepoint:xfs_inode_mark_sick"
        assert origin(event).function == ""
    else:
        assert origin(event).function == said[2]
        assert origin(event).failaddr != 0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fserror_stream_is_as_in_the_table(fault: Fault, attached: AttachedProbes) -> None:
    require_seen(fault, attached)
    expected = {
        (expected.error, expected.form)
        for expected in fault.expected
        if fault.name != "ext4_writeback"  # 7.x reports writeback from iomap only
    }
    buffer = fault.fstype == "xfs" and any(
        expected.form == "sb" and expected.error != errno.ESHUTDOWN
        for expected in fault.expected_of_proposed()
    )
    if buffer and not tells_owner_of_buffer(attached):
        expected = {(errno.EUCLEAN, "sb")}
    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        with watch(attached, fs, stream=Stream.FSERROR) as monitor:
            fault.cause(fs)
            events = wait_for_errors(monitor, len(expected))
    assert forms(events) == expected


@pytest.mark.parametrize("name", ["ext4_writeback", "xfs_writeback"])
def test_writeback_is_heard_on_marked_file_systems_only(
    name: str, attached: AttachedProbes
) -> None:
    fault = BY_NAME[name]
    with scratch(fault.fstype) as fs, scratch(fault.fstype) as other:
        for each in (fs, other):
            fault.prepare(each)
        with watch(attached, fs) as monitor:
            fault.cause(other)
            assert errors(monitor) == []
            caused = fault.cause(fs)
            events = wait_for_errors(monitor)
            assert {origin(event).ino for event in events} == {os.stat(caused.path).st_ino}
    assert forms(events) == {(errno.EIO, "inode")}
    assert all(event.error_count >= 1 for event in events)


# the queue


def test_one_monitor_hears_several_file_systems(attached: AttachedProbes) -> None:
    sick = BY_NAME["xfs_dirblock"]
    with scratch("ext4") as first, scratch("xfs") as second:
        sick.prepare(second)
        with watch(attached, first, second) as monitor:
            TRIGGER.cause(first)
            sick.cause(second)
            events = wait_for_errors(monitor, 2)
        marked = [str(fs.mount_point) for fs in (first, second)]
    assert sorted(origin(event).mount_point for event in events) == sorted(marked)
    assert len({event.fsid for event in events}) == 2


def test_errors_of_one_process_merge_while_nobody_reads(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs, watch(attached, fs) as monitor:
        pid = write_trigger(fs.device_name, COUNT)
        (event,) = wait_for_errors(monitor, COUNT)
        assert (event.error_count, event.pid) == (COUNT, pid)
        statistics = monitor.statistics()
    assert (statistics.delivered, statistics.merged) == (1, COUNT - 1)
    assert sum(statistics.dropped.values()) == statistics.dropped[DropReason.NOT_MARKED]


def test_loss_arithmetic_of_a_short_queue(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs, watch(attached, fs, max_events=2) as monitor:
        write_trigger(fs.device_name, 5)  # the first event: 1 queued, 4 merged
        for _ in range(3):
            TRIGGER.cause(fs)  # one queued, two too many
        wait_until(lambda: pumped(monitor) == 8, "8 errors")
        assert len(monitor) == 3
        events = list(monitor.read_events())
        statistics = monitor.statistics()
    assert [type(event) for event in events] == [FsErrorEvent, FsErrorEvent, OverflowEvent]
    assert statistics.seen == 8 + statistics.dropped[DropReason.NOT_MARKED]
    assert (statistics.delivered, statistics.merged, statistics.waiting) == (2, 4, 0)
    # errors of other file systems of this machine are nobody's
    dropped = {stage: count for stage, count in statistics.dropped.items() if count}
    assert dropped | {"not marked": 0} == {"queue full": 2, "not marked": 0}


def test_errors_from_before_the_mark_are_not_delivered(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs:
        TRIGGER.cause(fs)
        with watch(attached, fs) as monitor:
            assert errors(monitor) == []
            late = TRIGGER.cause(fs)
            assert [event.pid for event in wait_for_errors(monitor)] == [late.pid]


# the descriptor


def test_descriptor_is_readable_exactly_while_something_waits(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs, watch(attached, fs) as monitor:
        wait_until_silent(monitor)
        for _ in range(2):
            TRIGGER.cause(fs)
        assert readable(monitor)
        monitor.pump()
        assert readable(monitor)
        assert len(monitor.read(56)) == 56
        assert readable(monitor)
        assert len(monitor.read()) == 56
        wait_until_silent(monitor)
        assert monitor.read() == b""


def test_asyncio_can_wait_for_it(attached: AttachedProbes) -> None:
    async def first_event(monitor: Monitor, fs: Scratch) -> bytes:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()

        def on_readable() -> None:
            if (data := monitor.read()) and not done.done():
                done.set_result(data)

        loop.add_reader(monitor.fileno(), on_readable)
        try:
            await loop.run_in_executor(None, TRIGGER.cause, fs)
            return await asyncio.wait_for(done, 10)
        finally:
            loop.remove_reader(monitor.fileno())

    with scratch("ext4") as fs, watch(attached, fs) as monitor:
        assert len(asyncio.run(first_event(monitor, fs))) == 56


def test_closing_leaks_no_descriptor(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs:
        before = os.listdir("/proc/self/fd")
        for _ in range(2):
            with watch(attached, fs) as monitor:
                TRIGGER.cause(fs)
                assert len(wait_for_errors(monitor)) == 1
            assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("fast_attaching")
def test_own_probes_go_with_their_monitor(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs:
        before = os.listdir("/proc/self/fd")
        with Monitor([Mark.filesystem(str(fs.mount_point))], Stream.NATIVE) as monitor:
            TRIGGER.cause(fs)
            assert len(wait_for_errors(monitor)) == 1
        assert os.listdir("/proc/self/fd") == before


# mounts that come and go


def test_unmounting_needs_no_cooperation_and_ends_the_mark(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs, watch(attached, fs) as monitor:
        caused = TRIGGER.cause(fs)
        wait_until(lambda: pumped(monitor) == 1, "the error")
        fs.unmount()  # LabError if anything held it
        fs.mount()
        TRIGGER.cause(fs)
        assert [event.pid for event in errors(monitor)] == [caused.pid]
        TRIGGER.cause(fs)
        assert errors(monitor) == []


def test_a_new_mark_hears_it_again(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs:
        for _ in range(2):
            with watch(attached, fs) as monitor:
                TRIGGER.cause(fs)
                assert len(wait_for_errors(monitor)) == 1
            fs.remount_fresh()


def test_following_takes_up_new_mounts(attached: AttachedProbes) -> None:
    def from_mount(events: Iterable[FsErrorEvent], path: Path) -> int:
        return sum(e.error_count for e in events if origin(e).mount_point == str(path))

    with Monitor(None, attached=attached) as monitor, scratch("ext4") as fs:
        watching = f"now watching {fs.mount_point} (ext4)"
        monitor.pump()
        assert monitor.news().count(watching) == 1
        TRIGGER.cause(fs)
        assert from_mount(errors(monitor), fs.mount_point) == 1
        fs.unmount()
        monitor.pump()
        fs.mount()
        monitor.pump()
        assert monitor.news().count(watching) == 1
        TRIGGER.cause(fs)
        assert from_mount(errors(monitor), fs.mount_point) == 1


def test_a_file_system_that_goes_while_the_monitor_starts(
    attached: AttachedProbes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others unmount whenever they like: only a path that was named must be there."""
    with scratch("ext4") as fs:
        point = str(fs.mount_point)

        def source_of(*arguments: Any, **options: Any) -> Source:
            fs.unmount()
            return Source(*arguments, **options)

        monkeypatch.setattr("fserr_bpf.monitor.Source", source_of)
        with Monitor(None, attached=attached) as monitor:
            monitor.pump()
            assert point not in {marked.mount_point for marked in monitor.marks}
