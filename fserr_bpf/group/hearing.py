"""Whether the probes hear, and when they did not: gaps that are told and counted."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.timer import Timer
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.probes.canary import Canary
from fserr_bpf.uapi.record import Probe

_INTERVAL_NS = 60_000_000_000
_EARLY_NS = _INTERVAL_NS // 2  # who is awake anyway need not wake up again


class Singer(Protocol):
    """What is asked: `fserr_bpf.probes.canary.Canary`."""

    def fileno(self) -> int:
        """Readable when it should be asked."""

    def was_switched(self) -> bool:
        """Whether somebody has written to a switch since the last call."""

    def sings(self) -> bool:
        """Whether probes fire now."""

    def switched_off(self) -> list[str]:
        """Why they may not."""

    def close(self) -> None:
        """Release it."""


class Gap(NamedTuple):
    """A time in which errors may have been missed; CLOCK_REALTIME in nanoseconds.

    ``end_ns`` is None while it lasts.
    """

    start_ns: int
    end_ns: int | None

    def __str__(self) -> str:
        return f"{_time(self.start_ns)} to {_time(self.end_ns) if self.end_ns else 'now'}"


def in_words(gaps: Sequence[Gap]) -> str:
    """How many gaps, and when."""
    what = "gap" if len(gaps) == 1 else "gaps"
    return f"deaf in {len(gaps)} {what} ({', '.join(map(str, gaps))})"


class Hearing(Closing):
    """Asks the canary once a minute, and when a switch is written to.

    ``gaps`` has every gap so far, ``news`` what there is to tell. ``fileno()`` is readable
    when ``look()`` has something to do. ``clock`` gives CLOCK_REALTIME in nanoseconds.
    """

    def __init__(self, canary: Singer, clock: Callable[[], int] = time.time_ns) -> None:
        self._canary, self._clock = canary, clock
        self.gaps: list[Gap] = []
        self.news: list[str] = []
        self._heard_ns = clock()  # nothing before is ours
        self._refused = False
        self._timer = Timer()
        self._epoll = select.epoll()
        for source in (canary, self._timer):
            self._epoll.register(source.fileno(), select.EPOLLIN)
        self.check()

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._epoll.fileno()

    def look(self) -> None:
        """Ask if it is time, or a switch was written to."""
        if time.monotonic_ns() >= self._early_ns or self._epoll.poll(0):
            self.check()

    def check(self) -> None:
        """Ask now: where a switch was off and on again, nobody knows what was missed."""
        if self._epoll.closed:
            return
        switched = self._canary.was_switched()
        now = self._clock()
        deaf = bool(self.gaps) and self.gaps[-1].end_ns is None
        try:
            sings = self._canary.sings()
        except OSError as error:  # by seccomp, as a container or a unit of systemd may have it
            if not self._refused:
                self.news.append(
                    f"cannot see whether probes run: ioprio_get is refused ({error.strerror})"
                )
            self._refused = sings = True
        if sings:
            if deaf or switched:
                start = self.gaps.pop().start_ns if deaf else self._heard_ns
                self.gaps.append(Gap(start, now))
                self.news.append(f"probes run again: errors of {self.gaps[-1]} may be missing")
            self._heard_ns = now
        elif not deaf:
            start = now if switched else self._heard_ns
            self.gaps.append(Gap(start, None))
            off = " and ".join(self._canary.switched_off())
            why = (
                f"{off} is 0; set it to 1"
                if off
                else "the kernel runs none, and its switches are on"
            )
            self.news.append(f"no probe has run since {_time(start)}: {why}")
        asked_ns = time.monotonic_ns()
        self._early_ns = asked_ns + _EARLY_NS
        self._timer.set(asked_ns + _INTERVAL_NS)

    def close(self) -> None:
        """Ask no more; what is known stays."""
        self._epoll.close()
        self._timer.close()
        self._canary.close()


def hearing_of(attached: AttachedProbes) -> Hearing | None:
    """That of probes that can be switched off; None without kprobes."""
    if all(one.probe is not Probe.CANARY for one in attached.probes):
        return None
    return Hearing(Canary(attached.ring))


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9):%H:%M:%S}"
