"""A group over probes against a naive model: each error by itself, judged and queued alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.marks.rules import Answer, Chain, Part, Place
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.mark import MarkKind, SuperblockErrors
from fserr_bpf.model.queue import Queued
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.entry import AliasFlag, PlaceRecord
from fserr_bpf.uapi.inode import InodeId
from fserr_bpf.uapi.record import FSERR_PROBE_MAX, Flag, Probe, Record
from tests.ring_values import marked, place, record
from tests.stub_probes import StubCgroup, StubPlaces, group_of, observed

MARKED = (Dev(254, 3), Dev(254, 4))
UNMARKED = Dev(254, 5)
ROOT, TOP, OTHER = InodeId(2, 0), InodeId(10, 0), InodeId(20, 0)
FILES = (InodeId(98, 7), InodeId(99, 7), TOP)
NAME = int(AliasFlag.THERE | AliasFlag.WHOLE)
IN_TOP, ELSEWHERE, NOWHERE = place((NAME, (TOP, ROOT))), place((NAME, (OTHER, ROOT))), place()
CGROUPS = {70: Answer.YES, 80: Answer.NO, 90: Answer.UNKNOWN}


class Run(NamedTuple):
    """Errors that are alike."""

    record: Record
    errors: int
    place: PlaceRecord


class Step(NamedTuple):
    """``read``, ``take``, ``put back`` so many, ``lose`` so many, ``answer`` the place."""

    what: str
    number: int = 0


times = st.integers(0, 20)
parts = st.builds(
    Part,
    st.sampled_from((MarkKind.SUBTREE, MarkKind.INODE, MarkKind.FILESYSTEM)),
    st.just("/p"),
    st.sampled_from(FILES),
    times,
)
marks = st.builds(
    marked,
    since_ns=times,
    whole_ns=st.none() | times,
    inodes=st.dictionaries(st.sampled_from(FILES), times, max_size=2),
    parts=st.lists(parts, max_size=1).map(tuple),
    ignored=st.lists(parts, max_size=1).map(tuple),
    superblock=st.sampled_from(SuperblockErrors),
)
records = st.builds(
    lambda probe, task, inode, dev, time_ns, flags: record(
        probe,
        flags=flags | (Flag.HAS_INODE if inode else 0),
        ino=inode.ino if inode else 0,
        generation=inode.generation if inode else 0,
        dev=dev.number,
        time_ns=time_ns,
        tgid=task,
    ),
    st.sampled_from((Probe.WRITEBACK, Probe.WRITEBACK, Probe.EXT4_ERROR, Probe.XFS_FS_SICK)),
    st.sampled_from((70, 70, 80, 90)),
    st.none() | st.sampled_from(FILES),
    st.sampled_from((*MARKED, *MARKED, UNMARKED)),
    times,
    st.sampled_from((0, 0, 0, int(Flag.IN_INTERRUPT))),
)
runs = st.builds(
    Run, records, st.integers(1, 4), st.sampled_from((IN_TOP, ELSEWHERE, NOWHERE, NOWHERE))
)
steps = st.builds(
    Step,
    st.sampled_from(("read", "read", "take", "put back", "lose", "answer", "answer")),
    st.integers(0, 3),
)


class Waiting(NamedTuple):
    """An error in the line; ``asked`` is None if only those before it hold it up."""

    record: Record
    place: PlaceRecord
    asked: int | None


@dataclass
class NaiveGroup:
    """Every error alone: a line of those that wait, and one list that merges from end to end."""

    marks: dict[Dev, MarkedFilesystem]
    max_events: int | None
    cgroup: bool
    line: list[Waiting | None] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    queue: list[tuple[object, Record | None, int]] = field(default_factory=list)
    gone: list[tuple[object, Record | None, int]] = field(default_factory=list)
    dropped: Counter[DropReason] = field(default_factory=Counter)
    questions: int = 0

    def insert(self, run: Run) -> None:
        seen = run.record
        fate = self.before_the_line(seen)
        if fate:
            self.dropped[fate] += run.errors
        if fate or seen.probe == Probe.XFS_FS_SICK:
            return
        asked = None
        if self.verdict(seen, self.known(seen, run.place), final=False) is None:
            self.questions += 1
            asked = self.questions
        self.line += [Waiting(seen, run.place, asked) for _ in range(run.errors)]
        self.move()

    def before_the_line(self, seen: Record) -> DropReason | None:
        if seen.probe == Probe.XFS_FS_SICK:
            return None
        mark = self.marks.get(Dev.of(seen.dev))
        if mark is None or seen.time_ns < mark.since_ns:
            return DropReason.NOT_MARKED
        if self.cgroup and CGROUPS[seen.tgid] is Answer.NO:
            return DropReason.OTHER_CGROUP
        if self.cgroup and CGROUPS[seen.tgid] is Answer.UNKNOWN:
            return DropReason.CGROUP_UNKNOWN
        return None

    @staticmethod
    def known(seen: Record, where: PlaceRecord) -> Answer:
        """Whether it is below TOP."""
        if not seen.flags & Flag.HAS_INODE:
            return Answer.NO
        return {IN_TOP: Answer.YES, ELSEWHERE: Answer.NO}.get(where, Answer.UNKNOWN)

    def verdict(self, seen: Record, below: Answer, *, final: bool) -> DropReason | str | None:
        """A stage that drops it, "deliver", or None where only the place can tell."""
        mark = self.marks[Dev.of(seen.dev)]
        has_inode = bool(seen.flags & Flag.HAS_INODE)
        inode = InodeId(seen.ino, seen.generation) if has_inode else None
        whole = mark.whole_ns is not None and mark.whole_ns <= seen.time_ns
        named = inode in mark.inodes and mark.inodes[inode] <= seen.time_ns if inode else False
        all_of_it = inode is None and mark.superblock is SuperblockErrors.ALL
        heard = [Answer.YES if whole or named or all_of_it else Answer.NO]
        heard += [self.part(part, seen.time_ns, inode, below) for part in mark.parts]
        ignored = [self.part(part, seen.time_ns, inode, below) for part in mark.ignored]
        if Answer.YES not in heard and Answer.UNKNOWN not in heard:
            return DropReason.NOT_MARKED
        if Answer.YES in ignored:
            return DropReason.IGNORED
        if Answer.YES in heard and (final or Answer.UNKNOWN not in ignored):
            return "deliver"
        return DropReason.PLACE_UNKNOWN if final else None

    @staticmethod
    def part(part: Part, time_ns: int, inode: InodeId | None, below: Answer) -> Answer:
        if time_ns < part.since_ns:
            return Answer.NO
        if part.kind is MarkKind.FILESYSTEM:
            return Answer.YES
        if inode == part.root:
            return Answer.YES
        if part.kind is MarkKind.INODE or inode is None:
            return Answer.NO
        if part.root != TOP and below is Answer.YES:
            return Answer.NO  # in TOP, whole: not below a file
        return below

    def move(self) -> None:
        while self.line:
            first = self.line[0]
            if first is not None and first.asked is not None and first.asked not in self.answers:
                return
            self.line.pop(0)
            if first is None:
                self.overflow()
                continue
            below = self.known(first.record, first.place)
            if first.asked is not None:
                answer = self.answers[first.asked]
                below = below if answer is Answer.UNKNOWN else answer
            fate = self.verdict(first.record, below, final=True)
            if isinstance(fate, DropReason):
                self.dropped[fate] += 1
            else:
                self.enqueue(first.record)

    def overflow(self) -> None:
        if not any(key == "overflow" for key, _, _ in self.queue):
            self.queue.append(("overflow", None, 0))

    def enqueue(self, seen: Record) -> None:
        if self.max_events is not None and len(self.queue) >= self.max_events:
            self.dropped[DropReason.QUEUE_FULL] += 1
            self.overflow()
            return
        key = (seen.dev, None if seen.flags & Flag.IN_INTERRUPT else seen.tgid)
        for at, (other, first, count) in enumerate(self.queue):
            if other == key:
                self.queue[at] = (key, first, count + 1)
                return
        self.queue.append((key, seen, 1))

    def put_back(self, number: int) -> None:
        line = self.gone[len(self.gone) - number :] + self.queue
        del self.gone[len(self.gone) - number :]
        self.queue = []
        for key, first, count in line:
            same = [at for at, item in enumerate(self.queue) if item[0] == key]
            if same:
                old = self.queue[same[0]]
                self.queue[same[0]] = (key, old[1], old[2] + count)
            else:
                self.queue.append((key, first, count))


PLACES = {
    Answer.YES: Place((Chain((TOP, ROOT), True),), True),
    Answer.NO: Place((Chain((OTHER, ROOT), True),), True),
    Answer.UNKNOWN: None,
}


@settings(max_examples=200)
@given(
    st.lists(marks, min_size=2, max_size=2),
    st.none() | st.integers(0, 4),
    st.booleans(),
    st.lists(runs | runs | steps, max_size=25),
)
def test_a_group_behaves_as_the_naive_model(
    of: list[MarkedFilesystem], max_events: int | None, cgroup: bool, script: list[Run | Step]
) -> None:
    first, second = of[0], replace(of[1], dev=MARKED[1], fsid=Fsid(3, 4))
    places = StubPlaces()
    filtered = StubCgroup(CGROUPS) if cgroup else None
    group = group_of(first, second, max_events=max_events, places=places, cgroup=filtered)
    naive = NaiveGroup({MARKED[0]: first, MARKED[1]: second}, max_events, cgroup)
    lost, taken = [0] * FSERR_PROBE_MAX, list[Queued]()
    for step in script:
        if isinstance(step, Run):
            group.insert(observed(step.record, step.errors, place=step.place))
            naive.insert(step)
        elif step.what == "lose":
            lost[Probe.WRITEBACK] += step.number
            naive.dropped[DropReason.RING_FULL] += step.number
            if step.number:
                naive.line.append(None)
                naive.move()
            group.note_losses(lost)
        elif step.what == "answer":
            answer = list(Answer)[step.number % 3]
            wanted = {n for n in range(1, naive.questions + 1) if n not in naive.answers}
            for ticket in sorted(wanted)[step.number // 2 :]:
                places.answers[ticket], naive.answers[ticket] = PLACES[answer], answer
            group.settle()
            naive.move()
        elif step.what == "put back":
            number = min(step.number, len(taken))
            group.queue.put_back(taken[len(taken) - number :])
            del taken[len(taken) - number :]
            naive.put_back(number)
        elif naive.queue:
            naive.gone.append(naive.queue.pop(0))
            if step.what == "read":
                assert same(group.pop(), naive.gone[-1])
                taken.clear()
            else:
                taken.append(group.queue.take())
                assert same(taken[-1].event, naive.gone[-1])
        check(group, naive)
    assert len(places.asked) == naive.questions
    while naive.queue:
        assert same(group.pop(), naive.queue.pop(0))


def check(group: ErrorGroup, naive: NaiveGroup) -> None:
    """That the counts are those of the model, and the queue as long."""
    statistics = group.statistics({})
    assert {s: n for s, n in statistics.dropped.items() if n} == {
        s: n for s, n in naive.dropped.items() if n
    }
    waiting = len([error for error in naive.line if error])
    assert (group.undecided, len(group.queue)) == (waiting, len(naive.queue))
    events = [item for item in naive.gone if item[1]]
    assert statistics.delivered == len(events)
    assert statistics.merged == sum(count - 1 for _, _, count in events)
    assert statistics.waiting == waiting + sum(count for _, _, count in naive.queue)


def same(event: Event, expected: tuple[object, Record | None, int]) -> bool:
    _, seen, count = expected
    if seen is None:
        return isinstance(event, OverflowEvent)
    has_inode = bool(seen.flags & Flag.HAS_INODE)
    return (
        isinstance(event, FsErrorEvent)
        and (event.error, event.error_count) == (5, count)
        and event.pid == (0 if seen.flags & Flag.IN_INTERRUPT else seen.tgid)
        and event.fsid == (Fsid(1, 2) if Dev.of(seen.dev) == MARKED[0] else Fsid(3, 4))
        and (event.handle is not None) == has_inode
        and event.origin is not None
        and event.origin.ino == seen.ino
    )
