"""What became of each call that was taken over, in words, for ``--report-takeover``."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections import Counter
from enum import StrEnum

from fserr_bpf.outputs.text import printable
from fserr_bpf.takeover.calls import InitCall, MarkCall


class Fate(StrEnum):
    """Who answered a call."""

    EMULATED = "emulated"
    LET_THROUGH = "let through"


class Report:
    """Tells each call on standard error, if ``aloud``."""

    def __init__(self, *, aloud: bool) -> None:
        self._aloud = aloud
        self._counts: Counter[Fate] = Counter()
        self.groups = 0

    def tell(self, call: InitCall | MarkCall, tid: int, fate: Fate, why: str) -> None:
        """One call by ``tid``; ``why`` is its result or the reason for letting it through."""
        self._counts[fate] += 1
        if self._aloud:  # words take longer than the call
            self.say(f"{tid}: {call}: {fate}, {why}")

    def say(self, line: str) -> None:
        """One line on standard error, which is the client's; it may be gone."""
        if self._aloud:
            with contextlib.suppress(OSError):
                print(f"fserr-bpf: {printable(line)}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """The sum of it all."""
        counts = ", ".join(f"{self._counts[fate]} {fate}" for fate in Fate)
        self.say(f"calls: {counts}; {self.groups} groups emulated")


def result_words(result: int) -> str:
    """The result of a system call as strace(1) has it."""
    return str(result) if result >= 0 else f"-1 {errno.errorcode.get(-result, -result)}"
