"""The loss arithmetic: every error that a probe saw is in exactly one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fserr_bpf.group.hearing import Gap, in_words


class DropReason(StrEnum):
    """Why an error was dropped."""

    RING_FULL = "ring full"
    QUEUE_FULL = "queue full"
    NOT_MARKED = "not marked"
    NOT_IN_STREAM = "not in stream"
    IGNORED = "ignored"
    PLACE_UNKNOWN = "place not known"
    OTHER_CGROUP = "other cgroup"
    CGROUP_UNKNOWN = "cgroup not known"
    OUTPUT_FAILED = "output failed"


@dataclass(frozen=True)
class Statistics:
    """What became of every error; all are counts of errors.

    Of each event that was delivered one error is ``delivered``, so this is the number of events;
    the others that it stands for are ``merged``. ``waiting`` are those in events that were not
    read, or not even queued. ``dropped`` has the errors that no reader gets, by reason. ``missed``
    maps a probe to the runs that the kernel skipped there; those never were seen and are
    outside the sum. ``gaps`` are the times in which no probe was run at all.
    """

    delivered: int
    merged: int
    waiting: int
    dropped: Mapping[DropReason, int]
    missed: Mapping[str, int] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()

    @property
    def seen(self) -> int:
        """Errors that reached a probe."""
        return self.delivered + self.merged + self.waiting + sum(self.dropped.values())

    def without_output(self, errors: int, events: int) -> Statistics:
        """The same after ``errors`` in ``events`` were taken out but could not be written."""
        return replace(
            self,
            delivered=self.delivered - events,
            merged=self.merged - (errors - events),
            dropped={**self.dropped, DropReason.OUTPUT_FAILED: errors},
        )

    def __str__(self) -> str:
        """One line for people: seen = delivered + merged + dropped, and what was missed."""
        dropped = {why: self.dropped[why] for why in DropReason if self.dropped.get(why)}
        reasons = ", ".join(f"{count} {why}" for why, count in dropped.items())
        missed = ", ".join(f"{count} {probe}" for probe, count in self.missed.items() if count)
        return (
            f"{self.seen} errors seen = {self.delivered} delivered + {self.merged} merged"
            + (f" + {self.waiting} waiting" if self.waiting else "")
            + f" + {sum(dropped.values())} dropped"
            + (f" ({reasons})" if reasons else "")
            + f"; {sum(self.missed.values())} missed by probes"
            + (f" ({missed})" if missed else "")
            + (f"; {in_words(self.gaps)}" if self.gaps else "")
        )
