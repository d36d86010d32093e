"""The loss arithmetic: every error that a probe saw is in exactly one place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Statistics:
    """What became of every error; all are counts of errors, not of events.

    ``missed`` maps a probe to the runs that the kernel skipped there; those never
    were seen and are outside the sum.
    """

    delivered: int
    merged: int
    waiting: int
    ring_full: int
    queue_full: int
    not_marked: int
    not_in_stream: int
    ignored: int = 0
    place_unknown: int = 0
    other_cgroup: int = 0
    cgroup_unknown: int = 0
    output_failed: int = 0
    missed: dict[str, int] = field(default_factory=dict)

    @property
    def dropped(self) -> dict[str, int]:
        """Errors that no reader gets, by the stage that dropped them."""
        return {
            "ring full": self.ring_full,
            "queue full": self.queue_full,
            "not marked": self.not_marked,
            "not in stream": self.not_in_stream,
            "ignored": self.ignored,
            "place not known": self.place_unknown,
            "other cgroup": self.other_cgroup,
            "cgroup not known": self.cgroup_unknown,
            "output failed": self.output_failed,
        }

    @property
    def seen(self) -> int:
        """Errors that reached a probe."""
        return self.delivered + self.merged + self.waiting + sum(self.dropped.values())

    def without_output(self, errors: int, events: int) -> Statistics:
        """The same after ``errors`` in ``events`` were taken out but could not be written."""
        merged = min(self.merged, errors - events)
        return replace(
            self,
            delivered=self.delivered - (errors - merged),
            merged=self.merged - merged,
            output_failed=errors,
        )

    def __str__(self) -> str:
        """One line for people: seen = delivered + merged + dropped, and what was missed."""
        dropped = self.dropped
        stages = ", ".join(f"{count} {stage}" for stage, count in dropped.items() if count)
        missed = ", ".join(f"{count} {probe}" for probe, count in self.missed.items() if count)
        return (
            f"{self.seen} errors seen = {self.delivered} delivered + {self.merged} merged"
            + (f" + {self.waiting} waiting" if self.waiting else "")
            + f" + {sum(dropped.values())} dropped"
            + (f" ({stages})" if stages else "")
            + f"; {sum(self.missed.values())} missed by probes"
            + (f" ({missed})" if missed else "")
        )
