"""A group over probes: which errors become events, what merges, what overflows, who is shown."""

from __future__ import annotations

import errno

import pytest

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group.describe import overflow_event
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.event import FileHandle, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.loader import AttachedProbe
from fserr_bpf.probes.table import Kind, wanted
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.record import Flag, Probe, Record
from tests.ring_values import XFS, marked, record
from tests.stub_probes import (
    KPROBES,
    SEVEN,
    StubProbes,
    StubRing,
    errors_in,
    group_of,
    kernel_event,
    observed,
)

WHOLE = marked(whole_ns=50)
HANDLE = FileHandle(1, bytes.fromhex("63000000 07000000"))


def writeback(**fields: int) -> Record:
    """Of inode 99 generation 7, by process 70."""
    return record(Probe.WRITEBACK, flags=Flag.HAS_INODE, ino=99, generation=7)._replace(
        **fields  # type: ignore[arg-type]
    )


def dropped(group: ErrorGroup) -> dict[DropReason, int]:
    """What was dropped, without zeros."""
    return {stage: n for stage, n in group.statistics({}).dropped.items() if n}


def test_an_error_becomes_an_event() -> None:
    group = group_of(WHOLE)
    group.insert(observed(writeback()))
    (event,) = errors_in(group)
    assert event._replace(origin=None) == FsErrorEvent(Fsid(1, 2), HANDLE, 5, 1, 70)
    assert event.origin is not None
    assert (event.origin.source, event.origin.detail) == ("kprobe:writeback", None)
    assert (dropped(group), group.statistics({}).delivered) == ({}, 1)


def test_what_the_group_listens_to() -> None:
    for stream in Stream:
        for kernel in (KPROBES, SEVEN):
            group = group_of(WHOLE, stream=stream, probes=StubProbes(kernel))
            assert group.wanted == wanted(stream, kernel)
            assert (group.stream, group.flags, group.undecided) == (stream, GroupFlags(), 0)


@pytest.mark.parametrize(
    ("stream", "seen", "becomes"),
    [
        # probes are shared: what this stream has no rule for is of another one and not counted
        (Stream.NATIVE, writeback(), None),
        (Stream.NATIVE, record(Probe.SB_DELETE), None),
        # the rule is there, but not on this kernel
        (Stream.PROPOSED, record(Probe.EXT4_ABORT), None),
        (Stream.FSERROR, record(Probe.XFS_BUF_TRACE, magic=XFS, error=-117), None),
        (Stream.FSERROR, writeback(), DropReason.NOT_IN_STREAM),
        (Stream.PROPOSED, writeback(dev=Dev(254, 4).number), DropReason.NOT_MARKED),
        (Stream.PROPOSED, writeback(time_ns=49), DropReason.NOT_MARKED),
        # from before the mark is said first
        (Stream.FSERROR, writeback(time_ns=49), DropReason.NOT_MARKED),
    ],
)
def test_what_becomes_no_event_is_counted_once(
    stream: Stream, seen: Record, becomes: DropReason | None
) -> None:
    group = group_of(WHOLE, stream=stream)
    for errors in (1, 2):
        group.insert(observed(seen, errors))
    assert (len(group.queue), group.statistics({}).seen) == (0, 3 if becomes else 0)
    assert dropped(group) == ({becomes: 3} if becomes else {})


def test_errors_from_before_the_mark_are_not_delivered() -> None:
    group = group_of(marked(since_ns=100, whole_ns=100))
    for time_ns in (99, 100, 101):
        group.insert(observed(writeback(time_ns=time_ns)))
    (event,) = errors_in(group)
    assert (event.error_count, dropped(group)) == (2, {DropReason.NOT_MARKED: 1})


def test_the_sign_is_that_of_the_stream() -> None:
    for stream, error in ((Stream.NATIVE, -5), (Stream.FSERROR, 5), (Stream.PROPOSED, 5)):
        group = group_of(WHOLE, stream=stream)
        group.insert(observed(record(Probe.EXT4_ERROR)))
        (event,) = errors_in(group)
        assert (event.error, event.handle) == (error, None)


# merging


def test_the_end_of_a_file_system_merges_with_no_error() -> None:
    """It is of the same task, and would be gone: the first error is the one that is shown."""
    group = group_of(WHOLE)
    error = record(Probe.EXT4_ERROR, error=117)
    end = record(
        Probe.EXT4_END, flags=Flag.CORRUPTION, error=-errno.ESHUTDOWN, function=b"ext4_iget"
    )
    for seen in (error, error, end, error):
        group.insert(observed(seen))
    events = errors_in(group)
    assert [(event.error, event.error_count) for event in events] == [(117, 3), (108, 1)]
    reasons = [event.origin.reason for event in events if event.origin]
    assert reasons == ["", "corruption"]


def test_what_btrfs_counts_for_a_device_hides_no_file() -> None:
    """Both are of the task that writes, and the device's comes first."""
    group = group_of(WHOLE)
    counted = record(Probe.BTRFS_DEVICE, error=-errno.EIO)
    failed = record(Probe.WRITEBACK, error=-errno.EIO, flags=Flag.HAS_INODE, ino=257)
    for seen in (counted, failed, counted, failed):
        group.insert(observed(seen))
    events = errors_in(group)
    assert [(event.error_count, event.handle is None) for event in events] == [
        (2, True),
        (2, False),
    ]


def test_an_error_is_named_by_the_attachment_that_saw_it() -> None:
    probes = StubProbes(KPROBES)
    names = ("ext4_handle_error", "jbd2_journal_abort")
    probes.probes = [
        AttachedProbe(Probe.EXT4_END, Kind.KPROBE, name, number)
        for number, name in enumerate(names)
    ]
    group = group_of(WHOLE, probes=probes)
    for number, task in ((1, 70), (0, 71)):
        end = record(Probe.EXT4_END, flags=number << 12, error=-errno.ESHUTDOWN, tgid=task)
        group.insert(observed(end))
    sources = {event.origin.source for event in errors_in(group) if event.origin}
    assert sources == {f"kprobe:{name}" for name in names}


@pytest.mark.parametrize(
    ("changes", "flags", "events"),
    [
        ({"error": -28, "ino": 3, "time_ns": 2000}, GroupFlags(), 1),
        ({"tid": 72}, GroupFlags(), 1),
        ({"tid": 72}, GroupFlags(thread=True), 2),
        ({"tgid": 72}, GroupFlags(), 2),
        ({"tgid": 72}, GroupFlags(thread=True), 1),
        ({"task_start": 8}, GroupFlags(), 2),
        ({"failaddr": 9}, GroupFlags(), 1),
        ({"failaddr": 9}, GroupFlags(detail=True), 2),
        ({"failaddr": 9}, GroupFlags(location=True), 2),
        ({"error": -108}, GroupFlags(detail=True), 2),
        ({"error": -28}, GroupFlags(detail=True), 1),
    ],
)
def test_errors_of_one_task_merge(changes: dict[str, int], flags: GroupFlags, events: int) -> None:
    group = group_of(WHOLE, flags=flags)
    group.insert(observed(writeback()))
    group.insert(observed(writeback()._replace(**changes)))  # type: ignore[arg-type]
    made = errors_in(group)
    assert [event.error_count for event in made] == [2] if events == 1 else [1, 1]
    assert len(made) == events
    assert (made[0].error, made[0].handle) == (5, HANDLE)


def test_file_systems_do_not_merge() -> None:
    other = Dev(254, 4)
    group = group_of(WHOLE, marked(dev=other, whole_ns=50, fsid=Fsid(3, 4)))
    group.insert(observed(writeback()))
    group.insert(observed(writeback(dev=other.number)))
    assert [event.fsid for event in errors_in(group)] == [Fsid(1, 2), Fsid(3, 4)]


def test_without_a_task_all_is_of_one_and_of_nobody_else() -> None:
    group = group_of(WHOLE)
    for pid in (70, 80):
        group.insert(
            observed(writeback(tgid=pid, tid=pid, flags=Flag.HAS_INODE | Flag.IN_INTERRUPT))
        )
        group.insert(observed(writeback(tgid=pid, tid=pid)))
    assert [(event.pid, event.error_count) for event in errors_in(group)] == [
        (0, 2),
        (70, 1),
        (80, 1),
    ]


@pytest.mark.parametrize("thread", [False, True])
def test_a_bystander_is_not_shown(thread: bool) -> None:
    group = group_of(WHOLE, flags=GroupFlags(thread=thread))
    group.insert(observed(writeback(flags=Flag.HAS_INODE | Flag.IN_INTERRUPT)))
    group.insert(observed(writeback()))
    bystander, task = errors_in(group)
    assert bystander.origin is not None
    assert task.origin is not None
    assert (bystander.pid, bystander.origin.tid, bystander.origin.comm) == (0, 0, "")
    assert bystander.origin.task_start == 0
    assert (task.pid, task.origin.tid, task.origin.comm) == (71 if thread else 70, 71, "cat")
    assert task.origin.task_start == 7


# runs and overflow


@pytest.mark.parametrize("errors", [1, 2, 5])
def test_a_run_is_one_event(errors: int) -> None:
    group = group_of(WHOLE)
    group.insert(observed(writeback(), errors))
    statistics = group.statistics({})
    assert (statistics.merged, statistics.waiting) == (0, errors)
    assert [event.error_count for event in errors_in(group)] == [errors]
    statistics = group.statistics({})
    assert (statistics.delivered, statistics.merged, statistics.waiting) == (1, errors - 1, 0)


@pytest.mark.parametrize("errors", [1, 3])
def test_an_event_of_the_kernels_group_is_one_event(errors: int) -> None:
    """It may stand for several errors already: the others have merged, wherever they did."""
    group = group_of(WHOLE)
    group.insert(kernel_event(FsErrorEvent(Fsid(1, 2), HANDLE, 5, errors, 70)))
    assert [event.error_count for event in errors_in(group)] == [errors]
    statistics = group.statistics({})
    assert (statistics.delivered, statistics.merged, statistics.waiting) == (1, errors - 1, 0)


def test_the_first_of_a_run_may_be_the_last_that_fits() -> None:
    group = group_of(WHOLE, max_events=1)
    group.insert(observed(writeback(), 3))
    event, overflow = group.pop(), group.pop()
    assert isinstance(event, FsErrorEvent)
    assert event.error_count == 1
    assert isinstance(overflow, OverflowEvent)
    statistics = group.statistics({})
    assert (statistics.delivered, statistics.merged) == (1, 0)
    assert dropped(group) == {DropReason.QUEUE_FULL: 2}


def test_a_run_that_finds_the_queue_full_is_lost_whole() -> None:
    group = group_of(WHOLE, max_events=0)
    group.insert(observed(writeback(), 3))
    assert (len(group.queue), dropped(group)) == (1, {DropReason.QUEUE_FULL: 3})


def test_what_found_the_ring_full_is_one_overflow() -> None:
    ring = StubRing()
    ring.counts[Probe.WRITEBACK] = 10  # before this group was there
    group = group_of(WHOLE, probes=StubProbes(ring=ring))
    group.note_losses(ring.lost())
    assert (len(group.queue), dropped(group)) == (0, {})
    ring.counts[Probe.WRITEBACK] += 4
    ring.counts[Probe.EXT4_ERROR] += 1
    group.note_losses(ring.lost())
    group.note_losses(ring.lost())
    assert isinstance(group.pop(), OverflowEvent)
    group.note_losses(ring.lost())
    assert (len(group.queue), dropped(group)) == (0, {DropReason.RING_FULL: 5})
    # ends of marks, hints and errors of other streams are no errors of this one
    for probe in (Probe.SB_DELETE, Probe.EXT4_TRACE, Probe.XFS_FS_SICK, Probe.FSERROR):
        ring.counts[probe] += 1
    group.note_losses(ring.lost())
    assert (len(group.queue), dropped(group)) == (0, {DropReason.RING_FULL: 5})
    ring.counts[Probe.WRITEBACK] += 1
    group.note_losses(ring.lost())
    assert isinstance(group.pop(), OverflowEvent)
    assert dropped(group) == {DropReason.RING_FULL: 6}


def test_what_was_put_back_merges_again() -> None:
    group = group_of(WHOLE)
    group.insert(observed(writeback(), 2))
    taken = group.queue.take()
    group.insert(observed(writeback(), 3))
    group.queue.put_back([taken])
    statistics = group.statistics({})
    assert (statistics.delivered, statistics.merged, statistics.waiting) == (0, 0, 5)
    assert [event.error_count for event in errors_in(group)] == [5]
    assert group.statistics({}).seen == 5


def test_missed_runs_are_passed_on() -> None:
    assert group_of(WHOLE).statistics({"writeback": 3}).missed == {"writeback": 3}


def test_the_source_is_the_first_place_that_a_probe_is_attached_to() -> None:
    first, second = (AttachedProbe(Probe.WRITEBACK, Kind.KPROBE, name) for name in ("a", "b"))
    group = group_of(WHOLE, probes=StubProbes(probes=[first, second]))
    group.insert(observed(writeback()))
    (event,) = errors_in(group)
    assert event.origin is not None
    assert event.origin.source == first.source


# reading


def test_a_pidfd_is_opened_when_the_event_is_read() -> None:
    asked: list[tuple[int, int]] = []
    answers: dict[int, int | OSError] = {
        70: 33,
        71: ProcessLookupError(),
        72: OSError(errno.EMFILE, "Too many open files"),
        73: OSError("no number"),
    }

    def open_process(pid: int, started_ns: int) -> int:
        asked.append((pid, started_ns))
        answer = answers[pid]
        if isinstance(answer, OSError):
            raise answer
        return answer

    for numbers, expected in (
        (False, [33, -1, -2, -2, -1]),
        (True, [33, -errno.ESRCH, -errno.EMFILE, 0, -errno.ESRCH]),
    ):
        flags = GroupFlags(pidfd=True, numbers=numbers)
        table = MarkTable(())
        table.set([WHOLE])
        group = ErrorGroup(
            Stream.PROPOSED,
            flags,
            table,
            StubProbes(),
            NotificationQueue(5, lambda flags=flags: overflow_event(flags)),  # type: ignore[misc]
            open_process=open_process,
        )
        for pid in (70, 71, 72, 73):
            group.insert(observed(writeback(tgid=pid)))
        group.insert(observed(writeback(flags=Flag.HAS_INODE | Flag.IN_INTERRUPT), 2))
        assert asked == []
        events = [group.pop() for _ in range(6)]
        assert [e.pidfd for e in events if isinstance(e, FsErrorEvent)] == expected
        assert asked == [(70, 7), (71, 7), (72, 7), (73, 7)]
        # an overflow is of nobody
        assert events[5].fd == flags.fd
        assert isinstance(events[5], OverflowEvent)
        assert events[5].pidfd == flags.no_pidfd
        asked.clear()


def test_without_the_flag_nothing_is_opened_and_read_is_as_the_kernels() -> None:
    group = group_of(WHOLE, open_process=lambda pid, started_ns: pytest.fail("opened"))
    group.insert(observed(writeback()))
    data = group.read(4096)
    assert data == encode(FsErrorEvent(Fsid(1, 2), HANDLE, 5, 1, 70))
    with pytest.raises(BlockingIOError):
        group.read(4096)


def test_read_completes_as_pop_does() -> None:
    group = group_of(WHOLE, flags=GroupFlags(pidfd=True), open_process=lambda *_: 33)
    group.insert(observed(writeback()))
    assert group.read(4096) == encode(FsErrorEvent(Fsid(1, 2), HANDLE, 5, 1, 70, pidfd=33))


def test_addresses_are_hidden_unless_somebody_says_otherwise() -> None:
    table = MarkTable(())
    table.set([WHOLE])
    flags = GroupFlags(detail=True)
    group = ErrorGroup(Stream.PROPOSED, flags, table, StubProbes(), NotificationQueue(5))
    group.insert(observed(writeback(failaddr=0xFFFFFFFF81234567)))
    (event,) = errors_in(group)
    assert event.extra[0].data[28:36] == bytes(8)
