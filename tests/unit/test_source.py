"""What reaches the groups: runs of ring entries, ends of marks, events of the kernel's group."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import pytest

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.group import kernelgroup, source
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.source import Source
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.model.event import FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.queue import NotificationQueue, Result
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.table import Kernel, wanted
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.record import Flag, Probe
from tests.ring_values import DEV, detail, entry_bytes, marked, place, record
from tests.stub_probes import (
    KPROBES,
    NO_KPROBES,
    SEVEN,
    StubFanotifyGroup,
    StubProbes,
    StubRing,
    errors_in,
    group_of,
)
from tests.unit.test_errorgroup import dropped

Real = list[StubFanotifyGroup]
WHOLE = marked(whole_ns=50)
OTHER = Dev(254, 4)


def error(time_ns: int = 1000, **fields: int) -> bytes:
    """An entry: a writeback error of process 70."""
    return entry_bytes(
        record(Probe.WRITEBACK, flags=Flag.HAS_INODE, ino=99, time_ns=time_ns)._replace(
            **fields  # type: ignore[arg-type]
        )
    )


def pumped(*batches: list[bytes], groups: list[ErrorGroup], ring: StubRing | None = None) -> None:
    probes = StubProbes(ring=ring or StubRing())
    probes.ring.batches = list(batches)
    Source(probes.attached(), wanted(Stream.PROPOSED, KPROBES)).pump(groups)


def counts(group: ErrorGroup) -> list[tuple[int, int]]:
    return [(event.pid, event.error_count) for event in errors_in(group)]


def test_every_group_is_shown_every_entry_in_order() -> None:
    groups = [group_of(WHOLE), group_of(WHOLE), group_of(marked(dev=OTHER, whole_ns=50))]
    pumped(
        [error(), error(1001), error(1002, tgid=80), error(1003)],
        [error(1004, tgid=90), error(1005, dev=OTHER.number)],
        groups=groups,
    )
    assert [counts(group) for group in groups] == [
        [(70, 3), (80, 1), (90, 1)],
        [(70, 3), (80, 1), (90, 1)],
        [(70, 1)],
    ]
    assert [dropped(group) for group in groups] == [
        {DropReason.NOT_MARKED: 1},
        {DropReason.NOT_MARKED: 1},
        {DropReason.NOT_MARKED: 5},
    ]


def test_nothing_waits() -> None:
    group = group_of(WHOLE)
    pumped(groups=[group])
    pumped([error()], groups=[])
    assert len(group.queue) == 0


def test_an_entry_is_shown_with_all_that_is_in_it() -> None:
    group = group_of(WHOLE, owners=True)
    seen = record(Probe.WRITEBACK, flags=Flag.HAS_INODE, ino=99)
    pumped([entry_bytes(seen, detail(b"f", task_cgroup=5), place())], groups=[group])
    (event,) = errors_in(group)
    assert event.origin is not None
    assert event.origin.detail is not None
    assert (event.origin.detail.name, event.origin.detail.cgroup_id) == ("f", 5)


def test_the_clock_of_events_is_that_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 10_000_000)
    monkeypatch.setattr("time.monotonic_ns", lambda: 4_000_000)
    group = group_of(WHOLE)
    pumped([error(1000)], groups=[group])
    (event,) = errors_in(group)
    assert event.origin is not None
    assert event.origin.time_ns == 6_001_000


def test_a_run_does_not_reach_over_the_start_of_a_mark() -> None:
    """Of any group: each judges by the time of the first."""
    new = marked(dev=DEV, since_ns=1001, whole_ns=1001)
    groups = [group_of(WHOLE), group_of(new)]
    pumped([error(999), error(1000), error(1001), error(1002)], groups=groups)
    assert [counts(group) for group in groups] == [[(70, 4)], [(70, 2)]]
    assert dropped(groups[1]) == {DropReason.NOT_MARKED: 2}


@pytest.mark.parametrize(("first", "runs"), [(1000, [1, 3]), (999, [1, 1, 1])])
def test_runs_are_taken_whole_where_no_mark_is_newer(first: int, runs: list[int]) -> None:
    """Seen by how often the queue is asked: a run's first is put there apart from the rest."""
    counts = list[int]()

    class Watched(NotificationQueue):
        def insert(
            self, fsid: Fsid, task: Hashable, make: Callable[[], FsErrorEvent], count: int = 1
        ) -> Result:
            counts.append(count)
            return super().insert(fsid, task, make, count)

    group = group_of(marked(since_ns=1000, whole_ns=1000))
    group.queue = Watched()
    pumped([error(first), error(1001), error(1002), error(1003)], groups=[group])
    assert counts == runs


def test_a_pump_takes_eight_rounds_at_most() -> None:
    """A flood must not keep it from the readers."""
    group, ring = group_of(WHOLE), StubRing()
    pumped(*[[error()]] * 9, groups=[group], ring=ring)
    assert (counts(group), len(ring.batches)) == ([(70, 8)], 1)


def test_losses_reach_every_group_after_what_came_before() -> None:
    groups, ring = [group_of(WHOLE), group_of(WHOLE, stream=Stream.NATIVE)], StubRing()
    ring.counts[Probe.WRITEBACK] = 3
    pumped([error()], groups=groups, ring=ring)
    first, second = (groups[0].pop() for _ in range(2))
    assert isinstance(first, FsErrorEvent)
    assert isinstance(second, OverflowEvent)
    assert len(groups[1].queue) == 0


# ends of marks


def test_a_mark_ends_in_order_with_the_errors_around_it() -> None:
    groups = [group_of(WHOLE), group_of(marked(dev=OTHER, whole_ns=50)), group_of(WHOLE)]
    end = entry_bytes(record(Probe.SB_DELETE, time_ns=1001))
    probes = StubProbes()
    probes.ring.batches = [[error(1000), end, error(1002)]]
    ended = Source(probes.attached(), wanted(Stream.PROPOSED, KPROBES)).pump(groups)
    assert ended == [(groups[0], WHOLE), (groups[2], WHOLE)]
    assert [counts(group) for group in groups] == [[(70, 1)], [], [(70, 1)]]
    assert [dropped(group) for group in groups] == [
        {DropReason.NOT_MARKED: 1},
        {DropReason.NOT_MARKED: 2},
        {DropReason.NOT_MARKED: 1},
    ]
    assert [len(group.marks) for group in groups] == [0, 1, 0]


def test_the_end_of_an_earlier_superblock_on_that_device_ends_nothing() -> None:
    group = group_of(marked(since_ns=1002, whole_ns=1002))
    end = entry_bytes(record(Probe.SB_DELETE, time_ns=1001))
    pumped([end, error(1002)], groups=[group])
    assert counts(group) == [(70, 1)]


# the kernel's own group


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Real]:
    """The kernel knows FAN_FS_ERROR, and it is 2000; has the groups that were made."""
    made: list[StubFanotifyGroup] = []

    def make(flags: int) -> StubFanotifyGroup:
        made.append(StubFanotifyGroup(flags))
        return made[-1]

    monkeypatch.setattr(source, "kernel_accepts_fs_error", lambda: True)
    monkeypatch.setattr(kernelgroup, "FanotifyGroup", make)
    monkeypatch.setattr("time.monotonic_ns", lambda: 2000)
    monkeypatch.setattr("time.time_ns", lambda: 2000)
    yield made
    assert all(group.closed for group in made)


NO_KPROBES_7 = Kernel(kprobes=False, fserror=True, abort=False, sick=True, gate=True)


@pytest.mark.parametrize(
    ("stream", "of", "every"),
    [
        (Stream.NATIVE, NO_KPROBES, False),
        (Stream.PROPOSED, NO_KPROBES, False),
        (Stream.NATIVE, NO_KPROBES_7, True),
        (Stream.PROPOSED, NO_KPROBES_7, False),
        (Stream.NATIVE, KPROBES, None),
        (Stream.NATIVE, SEVEN, None),
    ],
)
def test_who_needs_the_kernels_group(
    kernel: Real,
    monkeypatch: pytest.MonkeyPatch,
    stream: Stream,
    of: Kernel,
    every: bool | None,
) -> None:
    probes = StubProbes(of).attached()
    for thread in (False, True):
        with Source(probes, wanted(stream, of), thread=thread) as made:
            assert made.filenos() == ((77,) if every is None else (77, 44))
            assert (made.kernel_group is None) == (every is None)
            if made.kernel_group:
                made.kernel_group.mark(marked(fstype="xfs"))
        assert made.kernel_group is None
    assert [bool(group.marked) for group in kernel] == ([] if every is None else [every] * 2)
    assert [bool(group.flags & 0x100) for group in kernel] == [False, True][: len(kernel)]
    monkeypatch.setattr(source, "kernel_accepts_fs_error", lambda: False)
    assert Source(probes, wanted(stream, of)).kernel_group is None


def test_without_probes_of_ext4_there_is_nothing_to_ask_the_kernel(
    kernel: Real,
) -> None:
    probes = StubProbes(NO_KPROBES)
    assert Source(probes.attached(), {Probe.WRITEBACK}).kernel_group is None


EVENT = FsErrorEvent(Fsid(1, 2), None, 117, 1, 70)


def trace(line: int, **fields: int) -> bytes:
    seen = record(Probe.EXT4_TRACE, line=line)
    return entry_bytes(seen._replace(**fields))  # type: ignore[arg-type]


def pumped_with(
    kernel: Real,
    events: list[FsErrorEvent],
    batches: list[list[bytes]],
    groups: list[ErrorGroup],
) -> None:
    probes = StubProbes(NO_KPROBES)
    probes.ring.batches = batches
    with Source(probes.attached(), wanted(Stream.PROPOSED, NO_KPROBES)) as made:
        kernel[0].reads = [encode(event) for event in events]
        made.pump(groups)


def lines(group: ErrorGroup) -> list[tuple[int, int]]:
    """Each event's line of its trace, 0 without, and its count."""
    return [
        (event.origin.line if event.origin else -1, event.error_count) for event in errors_in(group)
    ]


def test_an_event_of_the_kernels_has_its_trace_in_every_group(
    kernel: Real,
) -> None:
    groups = [group_of(WHOLE, probes=StubProbes(NO_KPROBES)) for _ in range(2)]
    pumped_with(
        kernel,
        [EVENT, EVENT._replace(pid=80)],
        [[trace(1), trace(2, tgid=90)], [trace(3, tgid=80)]],
        groups,
    )
    assert [lines(group) for group in groups] == [[(1, 1), (3, 1)]] * 2


def test_an_event_takes_as_many_traces_as_errors(kernel: Real) -> None:
    """Which are a run of equal ones, or all different."""
    group = group_of(WHOLE, probes=StubProbes(NO_KPROBES))
    traces = [trace(1, time_ns=1), trace(1, time_ns=2), trace(5, time_ns=3, task_start=8)]
    pumped_with(kernel, [EVENT._replace(error_count=2), EVENT], [traces], [group])
    assert lines(group) == [(1, 2), (5, 1)]


def test_each_trace_of_a_run_keeps_its_time(kernel: Real) -> None:
    """Of the last 64, which are all that are kept."""
    probes, group = StubProbes(NO_KPROBES), group_of(WHOLE, probes=StubProbes(NO_KPROBES))
    probes.ring.batches = [[trace(1, time_ns=n) for n in range(101, 167)]]
    times = []
    with Source(probes.attached(), wanted(Stream.PROPOSED, NO_KPROBES)) as made:
        for _ in range(2):
            kernel[0].reads = [encode(EVENT)]
            made.pump([group])
            times += [event.origin.time_ns for event in errors_in(group) if event.origin]
    # both clocks say 2000
    assert times == [103, 104]


def test_a_trace_whose_event_did_not_come_is_forgotten(
    kernel: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes, group = StubProbes(NO_KPROBES), group_of(WHOLE, probes=StubProbes(NO_KPROBES))
    with Source(probes.attached(), wanted(Stream.PROPOSED, NO_KPROBES)) as made:
        for now, line in ((1_000_001_000, 1), (1_000_001_001, 0)):
            probes.ring.batches = [[trace(1), trace(1, tgid=80)]]
            monkeypatch.setattr("time.monotonic_ns", lambda now=now: now)
            made.pump([group])
            kernel[0].reads = [encode(EVENT)]
            made.pump([group])
            assert lines(group) == [(line, 1)]


def test_an_event_without_a_mark_takes_no_trace(kernel: Real) -> None:
    group = group_of(WHOLE, probes=StubProbes(NO_KPROBES))
    pumped_with(kernel, [EVENT._replace(fsid=Fsid(9, 9)), EVENT], [[trace(1)]], [group])
    assert lines(group) == [(1, 1)]
    assert dropped(group) == {DropReason.NOT_MARKED: 1}


def test_a_trace_is_no_error_where_the_kernel_is_not_asked() -> None:
    group = group_of(WHOLE)
    pumped([trace(1)], groups=[group])
    assert group.statistics({}).seen == 0
