"""When hooks run: never two at a time for the same, few at a time in all, and never waited for.

An error whose hook runs already waits, and those that are alike join it: one run stands for
all of them, with the sum of their counts and the rest as the first has it. What finds no
room to wait is dropped and counted. Intervals make errors wait for a time: those of a file that
has just had a run, and those of all files, which then share the next run.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any, NamedTuple, Protocol

from fserr_bpf.children.spawn import PATIENCE_SECONDS, spawn
from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError

AT_ONCE = 4
"""Hooks that run at the same time at most."""
BACKLOG = 1024
"""Runs that wait at most."""
FILES_KEPT = 16384
"""Files at most whose last run is remembered."""
_STANDARD_ERROR = 2
_ENDED, _REMEDY = "the process that runs the hooks has ended", "start fserr-bpf again"


class Held(NamedTuple):
    """What else a run of the hook stands for: ``error_count`` errors, of ``files`` other files."""

    error_count: int = 0
    files: int = 0


class Subject(Protocol):
    """What a hook is run for: one error, or several that are alike."""

    @property
    def name(self) -> str:
        """For messages about its hook."""

    @property
    def file(self) -> tuple[object, ...]:
        """What an interval is counted for: of ``watch-files`` the file."""

    @property
    def alike(self) -> tuple[object, ...]:
        """What errors have in common that one run may stand for."""

    @property
    def error_count(self) -> int:
        """How many errors it is."""

    def with_errors(self, error_count: int) -> Subject:
        """The same with another count."""

    def environment(self, held: Held) -> dict[str, str]:
        """What the hook gets besides its own environment; "" is not known."""


class Counts(NamedTuple):
    """Of hooks: those that have ended, by how; ``dropped`` and ``joined`` never began.

    ``joined`` are events that a later run stood for, too.
    """

    run: int = 0
    failed: int = 0
    timed_out: int = 0
    joined: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        names = zip(("failed", "timed out", "joined a later run", "dropped"), self[1:], strict=True)
        return f"hooks: {self.run} run" + "".join(f", {number} {name}" for name, number in names)


class Intervals(NamedTuple):
    """Seconds between the beginnings of two runs: for one file, and of any."""

    file: float = 0.0
    all: float = 0.0


_NO_INTERVALS = Intervals()


class Begun(NamedTuple):
    """A run that begins, what it is for, and what else it stands for."""

    number: int
    error: Subject
    held: Held


class Backlog:
    """What runs and what waits, as pure state. ``running`` is by number.

    Times are CLOCK_MONOTONIC in seconds.
    """

    def __init__(
        self,
        at_once: int = AT_ONCE,
        limit: int = BACKLOG,
        intervals: Intervals = _NO_INTERVALS,
    ) -> None:
        self._at_once = at_once
        self._limit = limit
        self._intervals = intervals
        self._next = -math.inf
        self._next_of: dict[tuple[object, ...], float] = {}  # by file, the oldest first
        self._waiting: dict[tuple[object, ...], Subject] = {}
        self._last = 0
        self.running: dict[int, Subject] = {}
        self.joined = self.dropped = 0

    def __len__(self) -> int:
        """The number of runs that wait."""
        return len(self._waiting)

    def add(self, error: Subject) -> bool:
        """Let ``error`` wait for its turn; False if it was dropped."""
        if earlier := self._waiting.get(error.alike):
            self._waiting[error.alike] = earlier.with_errors(
                earlier.error_count + error.error_count
            )
            self.joined += 1
            return True
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            return False
        self._waiting[error.alike] = error
        return True

    def take(self, now: float) -> Begun | None:
        """The first that may begin now, which runs from here on, under a new number."""
        free = self._free()
        alike = next((alike for alike, due in free.items() if due <= now), None)
        if alike is None:
            return None
        error = self._waiting.pop(alike)
        self._last += 1
        self.running[self._last] = error
        if self._intervals.file:
            self._next_of.pop(error.file, None)
            self._next_of[error.file] = now + self._intervals.file
            while len(self._next_of) > FILES_KEPT:
                del self._next_of[next(iter(self._next_of))]
        held = Held()
        if self._intervals.all:
            self._next = now + self._intervals.all
            others = self._waiting.values()
            files = {other.file for other in others} - {error.file}
            held = Held(sum(other.error_count for other in others), len(files))
            self.joined += len(others)
            self._waiting.clear()
        return Begun(self._last, error, held)

    def due(self) -> float | None:
        """When the next may begin; None if that is for the end of a run to decide."""
        return min(self._free().values(), default=None)

    def _free(self) -> dict[tuple[object, ...], float]:
        """What waits for nothing but a time, in order, and for which."""
        if len(self.running) >= self._at_once:
            return {}
        busy = {error.alike for error in self.running.values()}
        return {
            alike: max(self._next, self._next_of.get(error.file, -math.inf))
            for alike, error in self._waiting.items()
            if alike not in busy
        }

    def done(self, number: int) -> Subject:
        """A run has ended; returns what it was for."""
        return self.running.pop(number)

    def drop_all(self) -> int:
        """Nothing that waits is to run any more; returns how many runs that were."""
        count = len(self._waiting)
        self.dropped += count
        self._waiting.clear()
        return count


class Hooks(Closing):
    """Runs ``command`` for errors, in a process that keeps the rights of now.

    ``timeout`` is in seconds; ``user`` is whom a hook becomes, None for no change.
    ``fileno()`` is readable when ``collect()`` has something to do, and at ``due`` it has too.
    """

    def __init__(
        self,
        command: str,
        timeout: float,
        user: str | None,
        intervals: Intervals = _NO_INTERVALS,
    ) -> None:
        self._backlog = Backlog(intervals=intervals)
        self._run = self._failed = self._timed_out = 0
        self._news: list[str] = []
        self._full = self._stopped = False
        self._runner = spawn(
            "fserr_bpf.hooks.runner",
            *(command, str(timeout), user or ""),
            output=_STANDARD_ERROR,  # what hooks print must not mix with the events
            new_session=True,  # Ctrl-C is for the monitor
        )
        self._runner.channel.make_room(AT_ONCE)

    def fileno(self) -> int:
        """The descriptor to poll for POLLIN."""
        return self._runner.channel.fileno()

    @property
    def running(self) -> int:
        """Hooks that run now."""
        return len(self._backlog.running)

    @property
    def waiting(self) -> int:
        """Runs that have not begun."""
        return len(self._backlog)

    def add(self, error: Subject) -> None:
        """Have the hook run for ``error``, now or when its turn comes."""
        if not self._backlog.add(error) and not self._full:
            self._full = True
            self._news.append(
                f"{BACKLOG} runs of the hook are waiting; further ones are dropped meanwhile"
            )
        self._begin()

    def collect(self) -> None:
        """Take what has ended, begin what may; FserrError if the process has ended."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take(self._receive())
        self._begin()

    def _receive(self) -> dict[str, Any]:
        try:
            return self._runner.channel.receive(wait=False)
        except EOFError as gone:
            raise FserrError(_ENDED, _REMEDY) from gone

    def _take(self, answer: dict[str, Any]) -> None:
        error = self._backlog.done(answer["number"])
        self._run += 1
        self._failed += bool(answer["trouble"]) and not answer["late"]
        self._timed_out += answer["late"]
        if answer["trouble"]:
            self._news.append(f"hook for {error.name}: {answer['trouble']}")
        if not len(self._backlog):
            self._full = False

    @property
    def due(self) -> float | None:
        """When the next hook may begin, CLOCK_MONOTONIC in seconds; None if none waits for that."""
        return self._backlog.due()

    def _begin(self) -> None:
        while begun := self._backlog.take(time.monotonic()):
            number, error, held = begun
            if held.error_count:
                self._news.append(
                    f"hook for {error.name}: stands for {held.error_count} errors of "
                    f"{held.files} other files, too, which were held back"
                )
            question = {"number": number, "environment": error.environment(held)}
            try:
                self._runner.channel.send(question, wait=False)
            except BlockingIOError as busy:
                # as many as may run fit, unless nobody reads them
                raise FserrError(
                    "the process that runs the hooks does not respond", _REMEDY
                ) from busy
            except ConnectionError as gone:
                raise FserrError(_ENDED, _REMEDY) from gone

    def stop(self) -> None:
        """Begin no further hook; those that run go on, in their time."""
        if self._stopped:
            return
        self._stopped = True
        if dropped := self._backlog.drop_all():
            self._news.append(f"dropped {dropped} runs of the hook that were waiting")
        if self.running:
            self._news.append(f"waiting for {self.running} hooks; a second signal ends the wait")

    def news(self) -> list[str]:
        """Messages since the last call."""
        news, self._news = self._news, []
        return news

    def counts(self) -> Counts:
        """How many so far."""
        return Counts(
            self._run, self._failed, self._timed_out, self._backlog.joined, self._backlog.dropped
        )

    def close(self) -> None:
        """Leave the process, which ends what still runs in its time."""
        self._runner.channel.close()
        self._runner.wait(0 if self.running else PATIENCE_SECONDS)
