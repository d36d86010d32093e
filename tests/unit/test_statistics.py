"""The loss arithmetic: every error is in exactly one number."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from fserr_bpf.group.hearing import Gap
from fserr_bpf.group.statistics import DropReason, Statistics

NOTHING = Statistics(delivered=0, merged=0, waiting=0, dropped={})
# powers of two: a sum says which of them are in it
ALL = Statistics(
    delivered=1,
    merged=2,
    waiting=4,
    dropped={
        DropReason.OUTPUT_FAILED: 2048,
        DropReason.RING_FULL: 8,
        DropReason.QUEUE_FULL: 16,
        DropReason.NOT_MARKED: 32,
        DropReason.NOT_IN_STREAM: 64,
        DropReason.IGNORED: 128,
        DropReason.PLACE_UNKNOWN: 256,
        DropReason.OTHER_CGROUP: 512,
        DropReason.CGROUP_UNKNOWN: 1024,
    },
    missed={"ext4_error": 4096, "writeback": 0, "fserror": 8192},
)


def test_every_number_but_missed_is_seen_once() -> None:
    assert ALL.seen == 4095
    assert NOTHING.seen == 0


def test_in_words() -> None:
    assert str(NOTHING) == (
        "0 errors seen = 0 delivered + 0 merged + 0 dropped; 0 missed by probes"
    )
    assert str(ALL) == (
        "4095 errors seen = 1 delivered + 2 merged + 4 waiting + 4088 dropped "
        "(8 ring full, 16 queue full, 32 not marked, 64 not in stream, 128 ignored, "
        "256 place not known, 512 other cgroup, 1024 cgroup not known, 2048 output failed); "
        "12288 missed by probes (4096 ext4_error, 8192 fserror)"
    )


def test_gaps_are_told_with_their_times() -> None:
    day = 24 * 3600 * 10**9
    gaps = (Gap(day, 2 * day), Gap(3 * day, None))
    told = str(replace(NOTHING, gaps=gaps))
    assert told == f"{NOTHING}; deaf in 2 gaps ({gaps[0]}, {gaps[1]})"


def test_what_could_not_be_written_was_neither_delivered_nor_merged() -> None:
    some = Statistics(10, 6, 0, {DropReason.RING_FULL: 1})
    failed = some.without_output(errors=5, events=2)
    assert (failed.delivered, failed.merged) == (8, 3)
    assert failed.dropped == {DropReason.RING_FULL: 1, DropReason.OUTPUT_FAILED: 5}


@given(
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_failed_output_moves_errors_and_loses_none(
    delivered: int, merged: int, waiting: int, errors: int, events: int
) -> None:
    assume(events <= delivered and 0 <= errors - events <= merged)
    before = Statistics(delivered, merged, waiting, {DropReason.IGNORED: 7}, {"writeback": 3})
    after = before.without_output(errors, events)
    assert after.seen == before.seen
    assert after.dropped == {DropReason.IGNORED: 7, DropReason.OUTPUT_FAILED: errors}
    assert min(after.delivered, after.merged) >= 0
    assert (after.waiting, after.missed) == (waiting, {"writeback": 3})
