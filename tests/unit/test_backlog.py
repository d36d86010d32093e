"""What waits for an output, and what stands for what did not find room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fserr_bpf.model.event import EventId, FsErrorEvent, Fsid, Lost
from fserr_bpf.outputs.schema import Message
from fserr_bpf.service.backlog import Backlog
from fserr_bpf.service.description import Full

NOW = 5


def of(seq: int, errors: int = 1) -> FsErrorEvent:
    return FsErrorEvent(Fsid(1, 2), None, 5, errors, 3, id=EventId("boot", 9, seq))


def lost(first: int, last: int, errors: int) -> Lost:
    return Lost(first, last, errors, NOW, EventId("boot", 9, last))


def filled(limit: int, drop: Full, seqs: range) -> Backlog:
    backlog = Backlog(limit, drop, clock=lambda: NOW)
    room = [backlog.put(of(seq, seq)) for seq in seqs]
    assert room == [at < limit for at in range(len(seqs))]
    return backlog


def test_newest_is_lost() -> None:
    backlog = filled(2, Full.NEWEST, range(1, 5))
    assert (backlog.messages, backlog.lost) == (2, 2)
    assert backlog.take(10) == [of(1, 1), of(2, 2), lost(3, 4, 7)]
    assert len(backlog) == backlog.messages == 0


def test_oldest_is_lost() -> None:
    backlog = filled(2, Full.OLDEST, range(1, 6))
    assert (backlog.messages, backlog.lost) == (2, 3)
    assert backlog.take(10) == [lost(1, 3, 6), of(4, 4), of(5, 5)]


def test_a_loss_takes_no_room_and_stands_in_its_place() -> None:
    backlog = filled(2, Full.NEWEST, range(1, 4))
    assert backlog.take(1) == [of(1, 1)]
    assert backlog.put(of(4))
    assert not backlog.put(of(5))
    assert backlog.take(10) == [of(2, 2), lost(3, 3, 3), of(4), lost(5, 5, 1)]


@pytest.mark.parametrize("drop", Full)
def test_what_is_put_back_is_first_again(drop: Full) -> None:
    backlog = filled(3, drop, range(1, 5))
    taken = backlog.take(2)
    backlog.put_back(taken)
    assert backlog.messages == 3
    assert [backlog.take(1)[0] for _ in taken] == taken


@given(
    st.sampled_from(Full),
    st.integers(1, 4),
    st.lists(st.integers(-3, 3), max_size=40),
)
def test_every_number_is_delivered_or_in_one_loss(drop: Full, limit: int, steps: list[int]) -> None:
    """Positive steps put, 0 fails to deliver, negative ones deliver."""
    backlog = Backlog(limit, drop)
    got: list[Message] = []
    seq = 0
    for step in steps:
        for _ in range(step):
            seq += 1
            backlog.put(of(seq))
        taken = backlog.take(max(-step, 2))
        if step < 0:
            got += taken
        else:
            backlog.put_back(taken)
    got += backlog.take(100)
    numbers: list[int] = []
    for each in got:
        assert each.id is not None
        numbers += range(each.first, each.last + 1) if isinstance(each, Lost) else [each.id.seq]
    assert numbers == list(range(1, seq + 1))
    assert backlog.lost == sum(each.last - each.first + 1 for each in got if isinstance(each, Lost))
