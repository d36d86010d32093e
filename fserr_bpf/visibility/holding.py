"""Reports that wait: for the answer where they happened, and behind one that does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fserr_bpf.visibility.rules import Place

_MAX = 16384  # a flood must not fill the memory while an answer is out


@dataclass(slots=True)
class Held:
    """``go`` is called with the place, None where it is not known or does not matter.

    ``ticket`` is that of the answer, 0 if it only waits for what is in front of it.
    """

    go: Callable[[Place | None], None]
    errors: int
    ticket: int = 0
    place: Place | None = None


class Holding:
    """A line: nothing overtakes."""

    def __init__(self) -> None:
        self._line: deque[Held] = deque()
        self.errors = 0

    def __len__(self) -> int:
        return len(self._line)

    def add(self, held: Held) -> None:
        """Put it at the end, or let it go at once if it waits for nothing."""
        if not held.ticket and not self._line:
            held.go(None)
            return
        self._line.append(held)
        self.errors += held.errors
        if len(self._line) > _MAX:
            self._let_go()

    def settle(self, answers: Mapping[int, Place | None]) -> None:
        """Let go what has its answer, up to the first that has not."""
        for held in self._line if answers else ():
            if held.ticket in answers:
                held.place, held.ticket = answers[held.ticket], 0
        while self._line and not self._line[0].ticket:
            self._let_go()

    def _let_go(self) -> None:
        held = self._line.popleft()
        self.errors -= held.errors
        held.go(held.place)
