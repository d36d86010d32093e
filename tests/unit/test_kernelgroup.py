"""The kernel's own group: its events, their traces, and which belongs to which."""

from __future__ import annotations

import pytest

from fserr_bpf.codec.entry import Entry
from fserr_bpf.codec.fanotify import encode
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group import kernelgroup
from fserr_bpf.group.describe import detail_of
from fserr_bpf.group.kernelgroup import KernelGroup
from fserr_bpf.model.event import (
    Event,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    Origin,
    OverflowEvent,
)
from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.record import Probe
from tests.ring_values import DEV, marked, record
from tests.stub_probes import OFFSET, StubFanotifyGroup, errors_in, group_of, kernel_event
from tests.unit.test_describe import HANDLE, INSIDE, ORIGIN, WHOLE

Real = list[StubFanotifyGroup]
SECOND = 1_000_000_000


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Real:
    """The groups that were made."""
    made: Real = []

    def make(flags: int) -> StubFanotifyGroup:
        made.append(StubFanotifyGroup(flags))
        return made[-1]

    monkeypatch.setattr(kernelgroup, "FanotifyGroup", make)
    return made


def trace(number: int, **fields: int) -> Entry:
    """The trace with this line number."""
    seen = record(Probe.EXT4_TRACE, line=number)
    return Entry(seen._replace(**fields))  # type: ignore[arg-type]


def event(pid: int = 70, errors: int = 1) -> FsErrorEvent:
    return FsErrorEvent(Fsid(1, 2), None, 117, errors, pid)


def test_what_the_kernel_is_asked(real: Real) -> None:
    ext4, xfs = marked(path="/e"), marked(path="/x", fstype="xfs")
    for every, thread in ((False, False), (True, True)):
        with KernelGroup(every=every, thread=thread) as group:
            assert group.fileno() == 44
            group.mark(ext4)
            group.mark(xfs)
        assert real[-1].closed
    # FAN_UNLIMITED_QUEUE and FAN_REPORT_TID of include/uapi/linux/fanotify.h are added to
    # what every group has
    assert [(group.flags, group.marked) for group in real] == [
        (0x10, ["/e"]),
        (0x110, ["/e", "/x"]),
    ]


def test_events_of_several_reads_and_nothing_else(real: Real) -> None:
    group = KernelGroup(every=False)
    events: list[Event] = [event(1), OverflowEvent(), event(2), event(3)]
    first, second, *rest = (encode(e) for e in events)
    real[0].reads = [first + second, *rest]
    assert list(group.read()) == [event(1), event(2), event(3)]
    assert list(group.read()) == []


# the join


def test_an_event_has_the_first_trace_since_the_last_one(real: Real) -> None:
    group = KernelGroup(every=False)
    for number in range(1, 6):
        group.add_trace(trace(number))
    # each event takes as many traces as it has errors
    assert group.take_trace(DEV, event(errors=2)) == trace(1)
    assert group.take_trace(DEV, event()) == trace(3)
    assert group.take_trace(DEV, event(errors=9)) == trace(4)
    assert group.take_trace(DEV, event()) is None
    group.add_trace(trace(6))
    assert group.take_trace(DEV, event()) == trace(6)


def test_traces_are_of_a_task_and_a_device(real: Real) -> None:
    other = Dev(254, 4)
    for thread, mine in ((False, 70), (True, 71)):
        group = KernelGroup(every=False, thread=thread)
        group.add_trace(trace(1))
        group.add_trace(trace(2, tgid=80, tid=81))
        group.add_trace(trace(3, dev=other.number))
        assert group.take_trace(DEV, event(mine)) == trace(1)
        assert group.take_trace(DEV, event(mine)) is None
        assert group.take_trace(other, event(mine + 10)) is None
        assert group.take_trace(DEV, event(mine + 10)) == trace(2, tgid=80, tid=81)
        assert group.take_trace(other, event(mine)) == trace(3, dev=other.number)


def test_the_last_64_traces_are_kept(real: Real) -> None:
    group = KernelGroup(every=False)
    for number in range(1, 67):
        group.add_trace(trace(number))
    assert group.take_trace(DEV, event()) == trace(3)


def test_a_trace_without_an_event_is_forgotten_after_a_second(
    real: Real,
) -> None:
    group = KernelGroup(every=False)
    group.add_trace(trace(1, time_ns=5 * SECOND))
    group.add_trace(trace(2, time_ns=5 * SECOND + 1))
    group.add_trace(trace(3, tgid=80, time_ns=5 * SECOND))
    group.forget(6 * SECOND)
    group.forget(6 * SECOND + 1)
    assert group.take_trace(DEV, event(80)) is None
    assert group.take_trace(DEV, event()) == trace(2, time_ns=5 * SECOND + 1)
    group.forget(7 * SECOND)
    group.add_trace(trace(4, time_ns=7 * SECOND))
    assert group.take_trace(DEV, event()) == trace(4, time_ns=7 * SECOND)


# its events in a group of ours


EXTRA = (InfoRecord(77, 0, b"abcd"),)
EVENT = FsErrorEvent(Fsid(1, 2), HANDLE, -117, 3, 70, extra=EXTRA)
TRACE = record(Probe.EXT4_TRACE, function=b"ext4_iget", line=12, ino=5, time_ns=900)


def test_an_event_of_the_kernels_own() -> None:
    group = group_of(WHOLE)
    group.insert(kernel_event(EVENT))
    alone = Origin(
        time_ns=1000 + OFFSET,
        dev=DEV,
        device="sda3",
        mount_point="/srv",
        fstype="ext4",
        ino=99,
        generation=7,
        tid=0,
        comm="",
        source="fanotify:FAN_FS_ERROR",
    )
    assert errors_in(group) == [EVENT._replace(error=117, origin=alone)]
    group.insert(kernel_event(EVENT._replace(handle=None)))
    (event,) = errors_in(group)
    assert event.origin == alone._replace(ino=0, generation=0)
    assert event.handle is None


def test_an_event_of_the_kernels_own_with_its_trace() -> None:
    group = group_of(WHOLE, flags=GroupFlags(pidfd=False, numbers=True), owners=True)
    group.insert(kernel_event(EVENT, Entry(TRACE, INSIDE)))
    (event,) = errors_in(group)
    assert event.origin == ORIGIN._replace(
        time_ns=900 + OFFSET,
        source="fanotify:FAN_FS_ERROR+kprobe:ext4_trace",
        function="ext4_iget",
        line=12,
        failaddr=0,
        block=0,
        detail=detail_of(Entry(TRACE, INSIDE), 117, "kprobe:f", owners=True),
    )
    assert (event.pid, event.error_count, event.fd) == (70, 3, -9)
    # the inode is what the event says; without one, what the trace says
    group.insert(kernel_event(EVENT._replace(handle=None), Entry(TRACE)))
    (event,) = errors_in(group)
    assert event.origin is not None
    assert event.origin.ino == 5


@pytest.mark.parametrize(
    ("stream", "error"), [(Stream.NATIVE, -117), (Stream.FSERROR, 117), (Stream.PROPOSED, 117)]
)
def test_the_sign_of_an_event_of_the_kernels_own(stream: Stream, error: int) -> None:
    group = group_of(WHOLE, stream=stream)
    group.insert(kernel_event(EVENT))
    assert [event.error for event in errors_in(group)] == [error]


def test_events_of_the_kernels_own_merge_by_task_and_its_start() -> None:
    group = group_of(WHOLE)
    for trace in (None, Entry(TRACE), Entry(TRACE._replace(task_start=8)), Entry(TRACE), None):
        group.insert(kernel_event(EVENT, trace))
    group.insert(kernel_event(EVENT._replace(pid=80)))
    assert [(event.pid, event.error_count) for event in errors_in(group)] == [
        (70, 6),
        (70, 6),
        (70, 3),
        (80, 3),
    ]


def test_an_event_of_a_file_system_without_marks() -> None:
    group = group_of(WHOLE)
    for _ in range(2):
        group.insert(kernel_event(EVENT._replace(fsid=Fsid(9, 9))))
    assert (len(group.queue), group.statistics({}).seen) == (0, 6)


def test_an_event_merges_with_one_whose_start_is_not_known_either() -> None:
    group = group_of(WHOLE)
    for trace in (None, Entry(TRACE._replace(task_start=0))):
        group.insert(kernel_event(EVENT, trace))
    assert [event.error_count for event in errors_in(group)] == [6]


def test_an_event_fits_whole_where_one_fits() -> None:
    group = group_of(WHOLE, max_events=1)
    group.insert(kernel_event(EVENT))
    assert [event.error_count for event in errors_in(group)] == [3]


def test_a_thread_is_shown_by_its_trace() -> None:
    group = group_of(WHOLE, flags=GroupFlags(thread=True))
    group.insert(kernel_event(EVENT, Entry(TRACE._replace(tid=75))))
    assert [event.pid for event in errors_in(group)] == [75]


def test_the_kernel_has_written_its_own_records() -> None:
    group = group_of(WHOLE, flags=GroupFlags(detail=True, location=True))
    group.insert(kernel_event(EVENT, Entry(TRACE)))
    assert [event.extra for event in errors_in(group)] == [EXTRA]
