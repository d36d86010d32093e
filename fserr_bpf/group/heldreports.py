"""Reports that wait: for the answer where they happened, and behind one that does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fserr_bpf.marks.rules import Place

_MAX = 16384  # a flood must not fill the memory while an answer is out

T = TypeVar("T")


@dataclass(slots=True)
class _Held(Generic[T]):
    report: T
    errors: int
    ticket: int | None
    place: Place | None = None


class HeldReports(Generic[T]):
    """A line: nothing overtakes.

    ``release`` gets each report with the answer to its question, None where it is not known
    or was not asked.
    """

    def __init__(self, release: Callable[[T, Place | None], None]) -> None:
        self._release = release
        self._line: deque[_Held[T]] = deque()
        self.errors = 0

    def __len__(self) -> int:
        return len(self._line)

    def add(self, report: T, errors: int, ticket: int | None = None) -> None:
        """Put it at the end of the line, or release it at once if it waits for nothing.

        ``errors`` is how many it stands for, ``ticket`` that of the answer that it waits for.
        """
        if ticket is None and not self._line:
            self._release(report, None)
            return
        self._line.append(_Held(report, errors, ticket))
        self.errors += errors
        if len(self._line) > _MAX:
            self._release_first()

    def settle(self, answers: Mapping[int, Place | None]) -> None:
        """Release what has its answer, up to the first that has not."""
        for held in self._line if answers else ():
            if held.ticket is not None and held.ticket in answers:
                held.place, held.ticket = answers[held.ticket], None
        while self._line and self._line[0].ticket is None:
            self._release_first()

    def _release_first(self) -> None:
        held = self._line.popleft()
        self.errors -= held.errors
        self._release(held.report, held.place)
