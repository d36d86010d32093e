"""Where an inode is and what a mark on a part of a file system hears, as pure rules."""

from __future__ import annotations

import itertools
import stat

import pytest

from fserr_bpf.marks.rules import (
    Answer,
    Chain,
    Part,
    Place,
    Verdict,
    any_hears,
    hears,
    place_of,
    verdict,
    within,
)
from fserr_bpf.model.mark import MarkKind
from fserr_bpf.uapi.entry import AliasFlag, PlaceFlag, PlaceRecord
from fserr_bpf.uapi.inode import InodeId
from tests.ring_values import place

ROOT, TOP, LOW, OTHER = (InodeId(n, 0, 0) for n in (2, 10, 11, 20))
FILE = InodeId(99, 7, 0)
PART = Part(MarkKind.SUBTREE, "/top", TOP, 100)
THERE, WHOLE, DELETED = AliasFlag.THERE, AliasFlag.WHOLE, AliasFlag.DELETED
INSIDE, OUTSIDE = (LOW, TOP, ROOT), (OTHER, ROOT)


def record(
    *names: tuple[int, tuple[InodeId, ...]],
    nlink: int = 1,
    mode: int = stat.S_IFREG,
    flags: int = PlaceFlag.INODE,
) -> PlaceRecord:
    """A place with these names, each with its flags besides THERE."""
    there = [(int(THERE | f), chain) for f, chain in names]
    return place(*there, nlink=nlink, mode=mode, flags=flags)


YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        (record((WHOLE, INSIDE)), YES),
        (record((0, INSIDE[:2])), YES),
        (record((WHOLE, OUTSIDE)), NO),
        (record((0, OUTSIDE[:1])), UNKNOWN),
        (record((0, ())), UNKNOWN),
        (record(), UNKNOWN),
        (record((WHOLE, OUTSIDE), flags=0), UNKNOWN),
        (None, UNKNOWN),
        # hard links
        (record((WHOLE, OUTSIDE), (WHOLE, INSIDE), nlink=2), YES),
        (record((WHOLE, OUTSIDE), (WHOLE, OUTSIDE), nlink=2), NO),
        (record((WHOLE, OUTSIDE), nlink=2), UNKNOWN),
        (record((WHOLE, INSIDE), nlink=2), YES),
        (record((WHOLE, OUTSIDE), (WHOLE, OUTSIDE), (WHOLE, OUTSIDE), nlink=3), NO),
        (record((WHOLE, OUTSIDE), (WHOLE, OUTSIDE), (WHOLE, OUTSIDE), nlink=4), UNKNOWN),
        # those of a directory are of its children
        (record((WHOLE, OUTSIDE), nlink=9, mode=stat.S_IFDIR), NO),
        # removed
        (record((WHOLE | DELETED, INSIDE), nlink=0), YES),
        (record((WHOLE | DELETED, OUTSIDE), nlink=0), NO),
        (record((WHOLE | DELETED, OUTSIDE), nlink=0, flags=3), UNKNOWN),
        (record((WHOLE | DELETED, OUTSIDE), (WHOLE | DELETED, INSIDE), nlink=0), YES),
        (record((WHOLE | DELETED, INSIDE), (WHOLE, OUTSIDE)), NO),
        (record((WHOLE | DELETED, INSIDE)), UNKNOWN),
    ],
)
def test_where_an_inode_is(seen: PlaceRecord | None, answer: Answer) -> None:
    assert within(PART, FILE, place_of(seen)) is answer


def test_the_marked_object_and_the_root_of_all_need_no_place() -> None:
    assert within(PART, TOP, None) is Answer.YES
    whole = Part(MarkKind.MOUNT, "/", ROOT, 0, everything=True)
    assert within(whole, FILE, None) is Answer.YES


def test_a_number_without_its_generation_or_subvolume_is_another() -> None:
    place = Place((Chain((TOP._replace(generation=1), ROOT), True),), True)
    assert within(PART, FILE, place) is Answer.NO
    part = Part(MarkKind.SUBTREE, "/top", TOP._replace(subvolume=256), 0)
    for subvolume, answer in ((256, YES), (257, NO), (0, UNKNOWN)):
        chain = tuple(above._replace(subvolume=subvolume) for above in (TOP, ROOT))
        assert within(part, FILE, Place((Chain(chain, True),), True)) is answer


HERE, AWAY, PARTLY = (
    Place((Chain(chain, whole),), True)
    for chain, whole in ((INSIDE, True), (OUTSIDE, True), (OUTSIDE, False))
)


def test_what_the_probe_saw_as_a_place() -> None:
    seen = record((WHOLE, INSIDE), (0, OUTSIDE), nlink=3)
    assert place_of(seen) == Place((Chain(INSIDE, True), Chain(OUTSIDE, False)), False)
    assert place_of(seen._replace(nlink=2)) == Place(
        (Chain(INSIDE, True), Chain(OUTSIDE, False)), True
    )
    more = record((WHOLE | DELETED, INSIDE), nlink=0, flags=PlaceFlag.INODE | PlaceFlag.MORE)
    assert place_of(more) == Place((Chain(INSIDE, True),), False)
    all_of_them = more._replace(flags=int(PlaceFlag.INODE))
    assert place_of(all_of_them) == Place((Chain(INSIDE, True),), True)


def test_no_name_is_no_place() -> None:
    assert [place_of(seen) for seen in (None, record(), record((WHOLE, INSIDE), flags=0))] == [
        None
    ] * 3
    assert place_of(record(flags=PlaceFlag.INODE, nlink=0)) is None


def test_flags_and_chains_belong_together() -> None:
    seen = record((WHOLE, INSIDE))
    with pytest.raises(ValueError, match="zip"):
        place_of(seen._replace(ancestors=seen.ancestors[:2]))


def test_an_inode_is_compared_by_the_32_bits_that_an_entry_has_of_its_subvolume() -> None:
    assert InodeId(257, 9, (7 << 32) + 256).narrow == InodeId(257, 9, 256)


@pytest.mark.parametrize("kind", list(MarkKind))
def test_errors_from_before_a_mark_are_not_its_own(kind: MarkKind) -> None:
    part = Part(kind, "/top", TOP, 100)
    assert [hears(part, time, TOP, HERE) for time in (99, 100, 101)] == [NO, YES, YES]


@pytest.mark.parametrize(
    ("kind", "inode", "where", "answer"),
    [
        (MarkKind.FILESYSTEM, None, None, YES),
        (MarkKind.FILESYSTEM, FILE, AWAY, YES),
        (MarkKind.INODE, None, None, NO),
        (MarkKind.INODE, FILE, HERE, NO),
        (MarkKind.INODE, TOP, AWAY, YES),
        (MarkKind.SUBTREE, None, HERE, NO),
        (MarkKind.SUBTREE, FILE, HERE, YES),
        (MarkKind.SUBTREE, FILE, AWAY, NO),
        (MarkKind.SUBTREE, FILE, PARTLY, UNKNOWN),
        (MarkKind.SUBTREE, FILE, None, UNKNOWN),
        (MarkKind.MOUNT, None, None, NO),
        (MarkKind.MOUNT, FILE, HERE, YES),
        (MarkKind.MOUNT, FILE, None, UNKNOWN),
    ],
)
def test_what_each_kind_of_mark_hears(
    kind: MarkKind, inode: InodeId | None, where: Place | None, answer: Answer
) -> None:
    assert hears(Part(kind, "/top", TOP, 100), 100, inode, where) is answer


def test_a_root_of_everything_still_is_no_mark_for_the_superblock() -> None:
    whole = Part(MarkKind.MOUNT, "/", ROOT, 0, everything=True)
    assert hears(whole, 0, None, None) is NO
    assert hears(whole, 0, FILE, None) is YES


def test_one_name_that_is_not_whole_leaves_the_question_open() -> None:
    chains = (Chain(OUTSIDE, True), Chain(OUTSIDE, False))
    assert within(PART, FILE, Place(chains, True)) is UNKNOWN
    assert within(PART, FILE, Place(chains[:1] * 2, True)) is NO
    assert within(PART, FILE, Place(chains[:1] * 2, False)) is UNKNOWN


def test_of_several_marks_one_that_surely_hears_is_enough() -> None:
    other = Part(MarkKind.SUBTREE, "/o", OTHER, 0)
    late = Part(MarkKind.SUBTREE, "/top", TOP, 1000)
    assert any_hears((), 100, FILE, HERE) is NO
    assert any_hears((other, PART), 100, FILE, HERE) is YES
    assert any_hears((other, late), 100, FILE, HERE) is NO
    assert any_hears((other, PART), 100, FILE, None) is UNKNOWN
    assert any_hears((other, PART), 100, TOP, None) is YES


VERDICTS = {
    (YES, NO): (Verdict.DELIVER, Verdict.DELIVER),
    (YES, YES): (Verdict.IGNORED, Verdict.IGNORED),
    (YES, UNKNOWN): (Verdict.UNDECIDED, Verdict.DELIVER),
    (UNKNOWN, NO): (Verdict.UNDECIDED, Verdict.UNDECIDED),
    (UNKNOWN, YES): (Verdict.IGNORED, Verdict.IGNORED),
    (UNKNOWN, UNKNOWN): (Verdict.UNDECIDED, Verdict.UNDECIDED),
    (NO, NO): (Verdict.NOT_MARKED, Verdict.NOT_MARKED),
    (NO, YES): (Verdict.NOT_MARKED, Verdict.NOT_MARKED),
    (NO, UNKNOWN): (Verdict.NOT_MARKED, Verdict.NOT_MARKED),
}


@pytest.mark.parametrize(("heard", "ignored"), list(itertools.product(Answer, Answer)))
def test_marks_and_ignore_marks_together(heard: Answer, ignored: Answer) -> None:
    now = verdict(heard, ignored, final=False), verdict(heard, ignored, final=True)
    assert now == VERDICTS[heard, ignored]
