"""The line of reports that wait for the answer where they happened."""

from __future__ import annotations

from fserr_bpf.group.heldreports import HeldReports
from fserr_bpf.marks.rules import Chain, Place
from fserr_bpf.uapi.inode import InodeId

HERE = Place((Chain((InodeId(10, 0, 0), InodeId(2, 0, 0)), True),), True)


Released = list[tuple[str, Place | None]]


def test_nothing_overtakes_what_waits() -> None:
    gone: Released = []
    held = HeldReports[str](lambda name, place: gone.append((name, place)))
    held.add("first", 2)
    for name, ticket in (("asked", 1), ("behind", None), ("again", 2), ("last", None)):
        held.add(name, 2, ticket)
    assert (gone, held.errors, len(held)) == ([("first", None)], 8, 4)
    held.settle({2: HERE})
    assert len(gone) == 1
    held.settle({1: None})
    assert gone[1:] == [("asked", None), ("behind", None), ("again", HERE), ("last", None)]
    assert (len(held), held.errors) == (0, 0)


def test_a_ticket_may_be_zero() -> None:
    gone: Released = []
    held = HeldReports[str](lambda name, place: gone.append((name, place)))
    held.add("asked", 1, 0)
    assert gone == []
    held.settle({0: HERE})
    assert gone == [("asked", HERE)]


def test_a_flood_does_not_wait_for_ever() -> None:
    gone = list[tuple[int, Place | None]]()
    held = HeldReports[int](lambda number, place: gone.append((number, place)))
    for number in range(16384):
        held.add(number, 3, number)
    assert (gone, held.errors) == ([], 3 * 16384)
    held.add(-1, 1)
    assert (gone, len(held), held.errors) == ([(0, None)], 16384, 3 * 16383 + 1)
    held.settle({0: HERE})  # nobody waits for that any more
    assert gone == [(0, None)]
    held.settle({1: HERE})
    assert gone == [(0, None), (1, HERE)]


def test_an_answer_holds_for_all_who_wait_for_it_and_no_answers_change_nothing() -> None:
    gone: Released = []
    held = HeldReports[str](lambda name, place: gone.append((name, place)))
    for name, ticket in (("a", 5), ("b", 5), ("c", 6)):
        held.add(name, 1, ticket)
    held.settle({})
    assert (gone, held.errors) == ([], 3)
    held.settle({5: HERE})
    assert (gone, held.errors, len(held)) == ([("a", HERE), ("b", HERE)], 1, 1)
