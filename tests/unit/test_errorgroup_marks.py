"""Which errors of a group's file systems are for its marks: ignore marks, parts, cgroups."""

from __future__ import annotations

import pytest

from fserr_bpf.codec.entry import Entry
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.marks.rules import Answer, Chain, MountId, Part, Place
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import FileHandle, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.mark import MarkKind, SuperblockErrors
from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.entry import AliasFlag, PlaceRecord
from fserr_bpf.uapi.inode import InodeId
from fserr_bpf.uapi.record import Flag, Probe, Record
from tests.ring_values import DEV, marked, place, record
from tests.stub_probes import (
    SEVEN,
    StubCgroup,
    StubPlaces,
    StubProbes,
    errors_in,
    group_of,
    kernel_event,
    observed,
)
from tests.unit.test_errorgroup import HANDLE, dropped, writeback

ROOT, TOP, OTHER, VICTIM = InodeId(2, 0), InodeId(10, 0), InodeId(20, 0), InodeId(99, 7)
WHOLE_NAME = int(AliasFlag.THERE | AliasFlag.WHOLE)
IN_TOP, ELSEWHERE = place((WHOLE_NAME, (TOP, ROOT))), place((WHOLE_NAME, (OTHER, ROOT)))
NOWHERE = place()
SUBTREE = Part(MarkKind.SUBTREE, "/srv/top", TOP, 50)
IGNORE_VICTIM = Part(MarkKind.INODE, "/srv/f", VICTIM, 60)
IGNORE_ALL = Part(MarkKind.FILESYSTEM, "/srv", InodeId(0, 0), 50, everything=True)
ALL = SuperblockErrors.ALL
SUPERBLOCK = record(Probe.EXT4_ERROR)
DELIVERED = None


@pytest.mark.parametrize(
    ("marks", "seen", "where", "becomes"),
    [
        (marked(inodes={VICTIM: 60}), writeback(), None, DELIVERED),
        (marked(inodes={VICTIM: 60}), writeback(time_ns=59), None, DropReason.NOT_MARKED),
        (marked(inodes={VICTIM: 60}), writeback(ino=98), None, DropReason.NOT_MARKED),
        (marked(inodes={VICTIM: 60}), writeback(generation=8), None, DropReason.NOT_MARKED),
        (marked(inodes={VICTIM: 60}), SUPERBLOCK, None, DropReason.NOT_MARKED),
        (marked(inodes={VICTIM: 60}, superblock=ALL), SUPERBLOCK, None, DELIVERED),
        (marked(whole_ns=70), writeback(time_ns=69), None, DropReason.NOT_MARKED),
        (marked(whole_ns=50, ignored=(IGNORE_ALL,)), writeback(), None, DropReason.IGNORED),
        (marked(whole_ns=50, ignored=(IGNORE_ALL,)), SUPERBLOCK, None, DropReason.IGNORED),
        (marked(whole_ns=50, ignored=(IGNORE_VICTIM,)), writeback(), None, DropReason.IGNORED),
        (marked(whole_ns=50, ignored=(IGNORE_VICTIM,)), writeback(time_ns=59), None, DELIVERED),
        (marked(whole_ns=50, ignored=(IGNORE_VICTIM,)), writeback(ino=98), None, DELIVERED),
        (marked(whole_ns=50, ignored=(SUBTREE,)), writeback(), IN_TOP, DropReason.IGNORED),
        (marked(whole_ns=50, ignored=(SUBTREE,)), writeback(), ELSEWHERE, DELIVERED),
        # nobody can say more: it ignores what surely is its own
        (marked(whole_ns=50, ignored=(SUBTREE,)), writeback(), None, DELIVERED),
        (marked(parts=(SUBTREE,)), writeback(), IN_TOP, DELIVERED),
        (marked(parts=(SUBTREE,)), writeback(), ELSEWHERE, DropReason.NOT_MARKED),
        (marked(parts=(SUBTREE,)), writeback(), NOWHERE, DropReason.PLACE_UNKNOWN),
        (marked(parts=(SUBTREE,)), SUPERBLOCK, None, DropReason.NOT_MARKED),
    ],
)
def test_what_marks_and_ignore_marks_make_of_an_error(
    marks: MarkedFilesystem, seen: Record, where: PlaceRecord | None, becomes: DropReason | None
) -> None:
    group = group_of(marks)
    for errors in (1, 2):
        group.insert(observed(seen, errors, place=where))
    assert dropped(group) == ({} if becomes is DELIVERED else {becomes: 3})
    assert sum(event.error_count for event in errors_in(group)) == (3 if becomes is None else 0)
    assert group.statistics({}).seen == 3


def test_an_unknown_place_is_reported_once_and_counted_always() -> None:
    group = group_of(marked(parts=(SUBTREE,)))
    for _ in range(3):
        group.insert(observed(writeback(), 2, place=NOWHERE))
    assert group.news == [
        "sda3: dropped an error whose location is unknown; further ones are only counted"
    ]
    assert dropped(group) == {DropReason.PLACE_UNKNOWN: 6}


# places that are asked for


def here(*above: InodeId) -> Place:
    return Place((Chain(above, True),), True)


@pytest.mark.parametrize(
    ("answer", "becomes"),
    [
        (here(TOP, ROOT), DELIVERED),
        (here(OTHER, ROOT), DropReason.NOT_MARKED),
        (None, DropReason.PLACE_UNKNOWN),
    ],
)
def test_an_unknown_place_is_asked_for(answer: Place | None, becomes: DropReason | None) -> None:
    places = StubPlaces()
    group = group_of(marked(parts=(SUBTREE,)), places=places)
    group.insert(observed(writeback(), 3, place=NOWHERE))
    assert places.asked == [("/srv", DEV, HANDLE)]
    assert (len(group.queue), group.undecided, dropped(group)) == (0, 3, {})
    assert (group.statistics({}).waiting, group.statistics({}).seen) == (3, 3)
    group.settle()
    assert group.undecided == 3
    places.answers[1] = answer
    group.settle()
    assert group.undecided == 0
    assert dropped(group) == ({} if becomes is DELIVERED else {becomes: 3})
    assert sum(event.error_count for event in errors_in(group)) == (3 if becomes is None else 0)


def test_without_an_answer_what_the_probe_saw_counts() -> None:
    places = StubPlaces()
    ignoring = marked(parts=(SUBTREE,), ignored=(Part(MarkKind.SUBTREE, "/o", OTHER, 50),))
    group = group_of(ignoring, places=places)
    # one of two names: in the subtree, but perhaps in the ignored one too
    group.insert(observed(writeback(), place=place((WHOLE_NAME, (TOP, ROOT)), nlink=2)))
    assert (len(places.asked), group.undecided) == (1, 1)
    places.answers[1] = None
    group.settle()
    assert [event.error_count for event in errors_in(group)] == [1]


def test_nothing_overtakes_what_waits() -> None:
    places = StubPlaces()
    group = group_of(marked(parts=(SUBTREE,), inodes={OTHER: 50}), places=places)
    group.insert(observed(writeback(), place=NOWHERE))
    group.insert(observed(writeback(ino=20, generation=0, tgid=80)))
    lost = [0] * 32
    lost[Probe.WRITEBACK] = 2
    group.note_losses(lost)
    assert (len(group.queue), group.undecided) == (0, 2)
    places.answers[1] = here(TOP, ROOT)
    group.settle()
    first, second, overflow = (group.pop() for _ in range(3))
    assert [e.pid for e in (first, second) if isinstance(e, FsErrorEvent)] == [70, 80]
    assert isinstance(overflow, OverflowEvent)


@pytest.mark.parametrize(
    ("seen", "where"),
    [
        # a bad inode is not touched
        (
            record(Probe.XFS_INODE_VERIFIER, flags=Flag.HAS_INODE, ino=99, generation=7),
            NOWHERE,
        ),
        (
            record(
                Probe.EXT4_ERROR_INODE,
                flags=Flag.HAS_INODE,
                ino=99,
                generation=7,
                function=b"__ext4_iget",
            ),
            NOWHERE,
        ),
    ],
)
def test_nobody_is_asked_about_a_bad_inode(seen: Record, where: PlaceRecord) -> None:
    places = StubPlaces()
    group = group_of(marked(parts=(SUBTREE,)), places=places)
    group.insert(observed(seen, place=where))
    assert (places.asked, dropped(group)) == ([], {DropReason.PLACE_UNKNOWN: 1})


def test_of_7_x_an_inode_that_no_name_was_seen_of_may_be_bad() -> None:
    for where, asked in ((NOWHERE, 0), (place((0b1, (OTHER,))), 1)):
        places = StubPlaces()
        group = group_of(
            marked(parts=(SUBTREE,)),
            places=places,
            stream=Stream.NATIVE,
            probes=StubProbes(SEVEN),
        )
        seen = record(Probe.FSERROR, flags=Flag.HAS_INODE, ino=99, generation=7)
        group.insert(observed(seen, place=where))
        assert len(places.asked) == asked


@pytest.mark.parametrize(
    ("function", "asked"), [(None, 0), (b"ext4_find_extent", 1), (b"__ext4_iget", 0)]
)
def test_who_is_asked_about_an_event_of_the_kernels(function: bytes | None, asked: int) -> None:
    """Without a trace nobody knows whether the inode itself is bad."""
    places = StubPlaces()
    group = group_of(marked(parts=(SUBTREE,)), places=places)
    trace = Entry(record(Probe.EXT4_TRACE, function=function)) if function else None
    group.insert(kernel_event(FsErrorEvent(Fsid(1, 2), HANDLE, 117, 2, 70), trace))
    assert places.asked == [("/srv", DEV, HANDLE)][:asked]


@pytest.mark.parametrize(
    ("marks", "where"),
    [
        (marked(whole_ns=50), None),
        (marked(inodes={VICTIM: 60}), None),
        (marked(parts=(SUBTREE,)), IN_TOP),
        (marked(parts=(SUBTREE,)), ELSEWHERE),
        (marked(parts=(SUBTREE,), form=None), NOWHERE),
        (marked(parts=(SUBTREE,), inodes={VICTIM: 60}), NOWHERE),
    ],
)
def test_nobody_is_asked_for_nothing(marks: MarkedFilesystem, where: PlaceRecord | None) -> None:
    places = StubPlaces()
    group = group_of(marks, places=places)
    group.insert(observed(writeback(), place=where))
    assert (places.asked, group.undecided) == ([], 0)


def test_who_cannot_be_asked_answers_at_once() -> None:
    group = group_of(marked(parts=(SUBTREE,)), places=StubPlaces(tickets=[None]))
    group.insert(observed(writeback(), place=NOWHERE))
    assert (group.undecided, dropped(group)) == (0, {DropReason.PLACE_UNKNOWN: 1})


def test_what_the_one_who_is_asked_has_to_tell_is_the_groups_news() -> None:
    places = StubPlaces(news=["the helper has ended"])
    group = group_of(marked(whole_ns=50), places=places)
    group.settle()
    group.settle()
    assert (group.news, places.news) == (["the helper has ended"], [])
    alone = group_of(marked(whole_ns=50))
    alone.settle()
    assert alone.news == []


# cgroups


def test_errors_of_other_cgroups_are_counted() -> None:
    cgroup = StubCgroup({70: Answer.YES, 80: Answer.NO, 90: Answer.UNKNOWN})
    group = group_of(marked(whole_ns=50), cgroup=cgroup)
    for pid in (80, 90, 70, 90, 80):
        group.insert(observed(writeback(tgid=pid), 2, place=IN_TOP))
    assert cgroup.places == [IN_TOP] * 5
    assert [(event.pid, event.error_count) for event in errors_in(group)] == [(70, 2)]
    assert dropped(group) == {DropReason.OTHER_CGROUP: 4, DropReason.CGROUP_UNKNOWN: 4}
    assert group.news == [
        "sda3: dropped an error whose cgroup is unknown; further ones are only counted"
    ]


def test_the_cgroup_of_an_event_of_the_kernels_is_that_of_its_trace() -> None:
    event = FsErrorEvent(Fsid(1, 2), FileHandle(1, bytes(8)), 117, 2, 70)
    cgroup = StubCgroup({70: Answer.YES})
    group = group_of(marked(whole_ns=50), cgroup=cgroup)
    group.insert(kernel_event(event))
    assert dropped(group) == {DropReason.CGROUP_UNKNOWN: 2}
    trace = Entry(record(Probe.EXT4_TRACE), place=IN_TOP)
    group.insert(kernel_event(event, trace))
    assert cgroup.places == [IN_TOP]
    assert [e.error_count for e in errors_in(group)] == [2]


# mounts of other processes


def test_a_mount_mark_ends_with_a_mount_that_nobody_else_would_tell_of() -> None:
    gone = Part(MarkKind.MOUNT, "/proc/1/root/m", TOP, 50, mount=MountId(7, DEV, 1 << 22))
    group = group_of(marked(parts=(gone,)))
    group.news.append("something before")
    group.insert(observed(writeback(time_ns=49)))
    group.insert(observed(writeback(), 2, place=IN_TOP))
    assert group.news == [
        "something before",
        "no longer watching the mount of /proc/1/root/m: unmounted",
    ]
    assert (dropped(group), len(group.marks)) == ({DropReason.NOT_MARKED: 3}, 0)
    kept = group_of(marked(parts=(gone, SUBTREE)))
    kept.insert(observed(writeback(), 2, place=IN_TOP))
    assert [event.error_count for event in errors_in(kept)] == [2]
    assert list(kept.marks) == [marked(parts=(SUBTREE,))]
    # a mount of our own is told of by our own table
    ours = Part(MarkKind.MOUNT, "/m", TOP, 50, mount=MountId(7, DEV))
    stays = group_of(marked(parts=(ours,)))
    stays.insert(observed(writeback(), place=IN_TOP))
    assert (stays.news, len(errors_in(stays))) == ([], 1)
