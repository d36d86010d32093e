"""What the bench reads of the product's own words."""

from __future__ import annotations

import dataclasses

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf.group.statistics import DropReason, Statistics
from fserr_bpf_compare.bench.flood import Outcome
from fserr_bpf_compare.bench.measured import Counts

_STATISTICS = Statistics(
    delivered=11,
    merged=13,
    waiting=0,
    dropped={DropReason.RING_FULL: 17, DropReason.QUEUE_FULL: 19},
    missed={"kprobe:a": 23},
)
_OUTCOME = Outcome(
    injected=100,
    summed=60,
    ring_full=40,
    dropped=40,
    missed=0,
    events=2,
    overflows=1,
    seconds=1.0,
    cpu=1.0,
    memory=1,
)


def test_counts_are_those_of_the_statistics() -> None:
    assert Counts.parse(f"fserr-bpf: {_STATISTICS}") == Counts(60, 36, 17, 23)


def test_counts_without_losses() -> None:
    quiet = dataclasses.replace(_STATISTICS, dropped={}, missed={}, waiting=5)
    assert Counts.parse(str(quiet)) == Counts(29, 0, 0, 0)


def test_other_last_words_are_an_error() -> None:
    with pytest.raises(LabError, match="gone"):
        Counts.parse("fserr-bpf: the reader of standard output has gone")


@pytest.mark.parametrize(
    "change", [{"summed": 59}, {"dropped": 39}, {"overflows": 0}, {"missed": 1}]
)
def test_accounted_means_exactly(change: dict[str, int]) -> None:
    assert _OUTCOME.accounted
    assert not dataclasses.replace(_OUTCOME, **change).accounted
