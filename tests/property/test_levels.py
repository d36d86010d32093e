"""Levels for all streams: what one sequence of errors gives, and what it cannot give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.model.event import FileHandle, FsErrorEvent, Fsid
from fserr_bpf_compare.verdict.cells import Level, Read
from fserr_bpf_compare.verdict.levels import FIELDS, differences, reached
from tests.property import strategies

# few values, so that errors are often alike
errors = st.builds(
    FsErrorEvent,
    fsid=st.sampled_from([Fsid(1, 0), Fsid(2, 0)]),
    handle=st.sampled_from([None, FileHandle(1, b"inode 12"), FileHandle(1, b"inode 13")]),
    error=st.sampled_from([5, 28, -5]),
    error_count=st.just(1),
    pid=st.sampled_from([9, 10]),
    fd=st.just(-1),
    pidfd=st.none(),
    extra=st.just(()),
    origin=st.none(),
)
sequences = st.lists(errors, min_size=1, max_size=8)
streams = st.lists(strategies.events, max_size=3)


def queued(sequence: list[FsErrorEvent], cuts: list[bool]) -> list[Read]:
    """What a reader gets that comes by after each error where ``cuts`` says so.

    fanotify's merging in five lines of its own: first error kept, by file system and pid.
    """
    reads = []
    waiting: dict[tuple[Fsid, int], FsErrorEvent] = {}
    for error, cut in zip(sequence, cuts, strict=True):
        first = waiting.setdefault((error.fsid, error.pid), error._replace(error_count=0))
        grown = first._replace(error_count=first.error_count + error.error_count)
        waiting[error.fsid, error.pid] = grown
        if cut:
            reads.append(as_read(waiting))
            waiting = {}
    return [*reads, as_read(waiting)]


def as_read(waiting: dict[tuple[Fsid, int], FsErrorEvent]) -> Read:
    return Read(65536, b"".join(map(encode, waiting.values())))


def delivery(draw: st.DataObject, sequence: list[FsErrorEvent]) -> list[Read]:
    """``sequence`` as workers may deliver it: any order, any pids, read at any time."""
    order = draw.draw(st.permutations(sequence))
    pids = draw.draw(st.lists(st.integers(1, 3), min_size=len(order), max_size=len(order)))
    cuts = draw.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))
    return queued([e._replace(pid=p) for e, p in zip(order, pids, strict=True)], cuts)


@given(sequences, st.data())
def test_two_deliveries_of_the_same_errors_agree_at_l2(
    sequence: list[FsErrorEvent], draw: st.DataObject
) -> None:
    one, other = delivery(draw, sequence), delivery(draw, sequence)
    assert reached(one, other) <= Level.L2
    assert list(differences(one, other, Level.L2)) == []


@given(sequences, st.data())
def test_one_error_more_or_less_is_never_l2(
    sequence: list[FsErrorEvent], draw: st.DataObject
) -> None:
    shorter = list(sequence)
    shorter.pop(draw.draw(st.integers(0, len(sequence) - 1)))
    one, other = delivery(draw, sequence), delivery(draw, shorter)
    assert reached(one, other) > Level.L2
    assert reached(other, one) > Level.L2


@given(sequences, st.data())
def test_a_changed_error_is_never_l2_where_nothing_merged(
    sequence: list[FsErrorEvent], draw: st.DataObject
) -> None:
    at = draw.draw(st.integers(0, len(sequence) - 1))
    changed = list(sequence)
    changed[at] = changed[at]._replace(error=99)
    one, other = (queued(s, [True] * len(s)) for s in (sequence, changed))
    assert reached(one, other) > Level.L2


@given(streams, streams)
def test_every_level_that_is_not_reached_has_a_reason_and_no_other_has(
    left: list[FsErrorEvent], right: list[FsErrorEvent]
) -> None:
    one, other = ([Read(65536, encode(event)) for event in side] for side in (left, right))
    level = reached(one, other)
    assert reached(other, one) is level
    for asked in (Level.L0, Level.L1, Level.L2, Level.L3):
        found = list(differences(one, other, asked))
        assert bool(found) == (asked < level)
        assert {difference.field for difference in found} <= FIELDS
