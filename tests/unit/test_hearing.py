"""When probes hear and when not, told by a canary that obeys."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from fserr_bpf.group.hearing import Gap, Hearing
from fserr_bpf.group.statistics import Statistics

SECOND = 1_000_000_000


class ObedientCanary:
    """Sings as it is told; ``switch()`` is somebody who writes to a switch."""

    def __init__(self) -> None:
        self.hears, self.off, self._written = True, [""], False
        self.closed = False
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._fd

    def switch(self, *, hears: bool) -> None:
        self.hears, self._written = hears, True
        os.eventfd_write(self._fd, 1)

    def was_switched(self) -> bool:
        written, self._written = self._written, False
        if written:
            os.eventfd_read(self._fd)
        return written

    def sings(self) -> bool:
        return self.hears

    def switched_off(self) -> list[str]:
        return [] if self.hears else list(filter(None, self.off))

    def close(self) -> None:
        self.closed = True
        os.close(self._fd)


class Clock:
    """CLOCK_REALTIME that is set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


Ears = tuple[ObedientCanary, Clock, Hearing]


@pytest.fixture
def ears() -> Iterator[Ears]:
    canary, clock = ObedientCanary(), Clock()
    with Hearing(canary, clock) as hearing:
        yield canary, clock, hearing
    assert canary.closed


def at(clock: Clock) -> str:
    return f"{datetime.fromtimestamp(clock.now / SECOND):%H:%M:%S}"


def test_nothing_is_told_while_it_sings(ears: Ears) -> None:
    _, clock, hearing = ears
    clock.now += 3600 * SECOND
    hearing.check()
    assert (hearing.gaps, hearing.news) == ([], [])


def test_a_switch_is_noticed_at_once_and_so_is_its_return(ears: Ears) -> None:
    canary, clock, hearing = ears
    start = clock.now = clock.now + 7 * SECOND
    since = at(clock)
    canary.off = ["kernel.ftrace_enabled"]
    canary.switch(hears=False)
    hearing.look()
    assert hearing.gaps == [Gap(start, None)]
    clock.now += 5 * SECOND
    hearing.check()  # still deaf: told once
    canary.switch(hears=True)
    hearing.look()
    assert hearing.gaps == [Gap(start, clock.now)]
    assert hearing.news == [
        f"no probe has run since {since}: kernel.ftrace_enabled is 0; set it to 1",
        f"probes run again: errors of {since} to {at(clock)} may be missing",
    ]


def test_what_nobody_saw_begins_when_it_sang_last(ears: Ears) -> None:
    canary, clock, hearing = ears
    last = clock.now
    clock.now += 60 * SECOND
    canary.hears = False
    hearing.check()
    assert hearing.gaps == [Gap(last, None)]
    assert hearing.news[0].endswith(": the kernel runs none, and its switches are on")


def test_off_and_on_again_before_anybody_looked_is_a_gap(ears: Ears) -> None:
    canary, clock, hearing = ears
    last = clock.now
    clock.now += 2 * SECOND
    canary.switch(hears=False)
    canary.hears = True
    hearing.look()
    assert hearing.gaps == [Gap(last, clock.now)]


def test_deaf_from_the_start() -> None:
    canary = ObedientCanary()
    canary.hears = False
    with Hearing(canary) as hearing:
        assert len(hearing.gaps) == len(hearing.news) == 1


def test_what_is_known_stays_when_it_is_closed() -> None:
    canary = ObedientCanary()
    canary.hears = False
    with Hearing(canary) as hearing:
        pass
    hearing.check()
    assert len(hearing.gaps) == 1


def test_a_call_that_is_refused_is_told_once() -> None:
    canary = ObedientCanary()

    def refuse() -> bool:
        raise PermissionError(1, "Operation not permitted")

    canary.sings = refuse  # type: ignore[method-assign]
    with Hearing(canary) as hearing:
        hearing.check()
    refused = "cannot see whether probes run: ioprio_get is refused (Operation not permitted)"
    assert (hearing.gaps, hearing.news) == ([], [refused])


def test_it_wakes_up_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    due: list[int] = []
    monkeypatch.setattr("fserr_bpf.kernel.timer.Timer.set", lambda _self, ns: due.append(ns))
    before = time.monotonic_ns()
    with Hearing(ObedientCanary()):
        (when,) = due
    assert 60 * SECOND <= when - before < 70 * SECOND


def test_gaps_in_the_last_line() -> None:
    gap = Gap(1_800_000_000 * SECOND, 1_800_000_002 * SECOND)
    nothing = Statistics(delivered=0, merged=0, waiting=0, dropped={}, gaps=(gap,))
    assert str(nothing).endswith(f"; 0 missed by probes; deaf in 1 gap ({gap})")
    two = Statistics(delivered=0, merged=0, waiting=0, dropped={}, gaps=(gap, Gap(1, None)))
    assert " to now)" in str(two)
    assert "; deaf in 2 gaps (" in str(two)
