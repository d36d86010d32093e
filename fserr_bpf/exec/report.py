"""Who answered each call that was taken over, and with what, for ``--report-takeover``."""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from enum import StrEnum

from fserr_bpf.exec.fanotifycalls import InitCall, MarkCall
from fserr_bpf.exec.lines import ErrorLines


class Outcome(StrEnum):
    """Who answered a call."""

    EMULATED = "emulated"
    LET_THROUGH = "let through"


class Report:
    """Counts the calls, and writes each to ``lines`` if ``enabled``."""

    def __init__(self, lines: ErrorLines, *, enabled: bool, debug: bool = False) -> None:
        self._lines = lines
        self.enabled, self._debug = enabled, debug
        self._troubles: set[str] = set()
        self._counts: Counter[Outcome] = Counter()
        self.groups = 0

    def call(self, call: InitCall | MarkCall, tid: int, outcome: Outcome, why: str) -> None:
        """One call by ``tid``; ``why`` is its result or the reason for letting it through."""
        self._counts[outcome] += 1
        if self.enabled:  # words take longer than the call
            self.line(f"{tid}: {call}: {outcome}, {why}")

    def result(self, call: InitCall | MarkCall, tid: int, result: int) -> None:
        """One call by ``tid`` that was answered with ``result``, minus an errno for an error."""
        words = str(result) if result >= 0 else f"-1 {errno.errorcode.get(-result, -result)}"
        self.call(call, tid, Outcome.EMULATED, words)

    def line(self, line: str) -> None:
        """One line, if they are wanted."""
        if self.enabled:
            self._lines.write(line)

    def trouble(self, line: str) -> None:
        """What exec itself lacks, so that a call failed with EIO: once, ``enabled`` or not."""
        if line not in self._troubles:
            self._troubles.add(line)
            self._lines.write(line)

    def mistake(self, error: Exception) -> None:
        """One of this program, which costs one call."""
        self.trouble(f"unexpected {error!r}")
        if self._debug:
            self._lines.write_text("".join(traceback.format_exception(error)))

    def end(self) -> None:
        """The sum of it all."""
        counts = ", ".join(f"{self._counts[outcome]} {outcome}" for outcome in Outcome)
        self.line(f"calls: {counts}; {self.groups} groups emulated")
