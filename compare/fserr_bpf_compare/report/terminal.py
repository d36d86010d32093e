"""What a terminal shows: a line while the harness works, then kernels by scenarios."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Sequence

from fserr_bpf.closing import Closing
from fserr_bpf_compare.verdict.cells import Cell, Judged, Outcome, Witness

_SHOWN = 4  # differences of one cell; the report has them all
NO_EVENT_SIGN = "∅"
NO_EVENT = "no event on either side, and none is due; the kernel log shows the fault"
NO_EVENT_OF_IMAGE = "no event on either side"
_WORDS = {
    Outcome.SAME: "same",
    Outcome.DIFFERENT: "DIFFERENT",
    Outcome.BROKEN: "BROKEN",
    Outcome.NOT_RUN: "not run",
}


class Progress(Closing):
    """One line on standard error; without a terminal a line for each kernel that ends.

    A cell that is different or broken is shown at once either way.
    """

    def __init__(self, kernels: Sequence[str], cells: int, noun: str) -> None:
        self._counts = dict.fromkeys(kernels, 0)
        self._cells, self._noun = cells, noun
        self._live = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._show("")

    def close(self) -> None:
        """Take the line away."""
        if self._live:
            self._write("\r\x1b[K")

    def add(self, judged: Judged) -> None:
        """Count a cell that was judged; from any thread."""
        with self._lock:
            kernel = judged.cell.kernel
            self._counts[kernel] += 1
            if judged.outcome in (Outcome.DIFFERENT, Outcome.BROKEN):
                self._write("\r\x1b[K" if self._live else "")
                self._write(f"{name(judged)}: {_WORDS[judged.outcome]}: {reason(judged)}\n")
            self._show(judged.cell.scenario)
            if not self._live and self._counts[kernel] == self._cells:
                self._write(f"compare: {kernel}: {self._cells} {self._noun}\n")

    def _show(self, last: str) -> None:
        if self._live:
            done = ", ".join(f"{kernel} {n}/{self._cells}" for kernel, n in self._counts.items())
            self._write(f"\r\x1b[Kcompare: {done} {last}"[:100])

    def _write(self, words: str) -> None:
        sys.stderr.write(words)
        sys.stderr.flush()


def name(judged: Judged) -> str:
    """Scenario and kernel in words."""
    return f"{judged.cell.scenario} on {judged.cell.kernel}"


def label(judged: Judged) -> str:
    """A cell of the table: the level that was reached, or why there is none."""
    if judged.outcome is Outcome.SAME and judged.reached is not None:
        return f"L{int(judged.promised if judged.tolerated else judged.reached)}" + "*" * bool(
            judged.tolerated
        )
    return _WORDS[judged.outcome]


def reason(judged: Judged) -> str:
    """Why a cell is not the same, in one line."""
    if judged.differences:
        shown = [
            f"{f'event {d.event} ' if d.event >= 0 else ''}{d.field}: {d.real} / {d.emulated}"
            for d in judged.differences[:_SHOWN]
        ]
        more = len(judged.differences) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "")
    return judged.reason


def has_no_event(judged: Judged) -> bool:
    """Whether a cell is the same because neither side sent an event.

    None was due then: the scenario says so, and the kernel log shows that the fault was real.
    Of an image nothing is said about what is due.
    """
    return judged.outcome is Outcome.SAME and not has_event(judged.cell)


def has_event(cell: Cell) -> bool:
    """Whether a side sent one; where only the log is beside ours, whether ours did."""
    if cell.witness == Witness.LOG:
        return any(errors for _, errors in cell.heard)
    return any(read.data for read in cell.real + cell.emulated)


def table(judged: Sequence[Judged], stale: Sequence[str]) -> list[str]:
    """Scenarios by kernels, what is behind each cell that has no level, and the totals."""
    kernels = list(dict.fromkeys(j.cell.kernel for j in judged))
    every = list(dict.fromkeys(j.cell.scenario for j in judged))
    # what could run nowhere is in the reasons only
    ran = {j.cell.scenario for j in judged if j.outcome is not Outcome.NOT_RUN}
    scenarios = [scenario for scenario in every if scenario in ran]
    cells = {(j.cell.scenario, j.cell.kernel): j for j in judged}
    releases = {j.cell.kernel: j.cell.release for j in judged if j.cell.release}
    rows = [["scenario", *(_heading(kernel, releases.get(kernel, "")) for kernel in kernels)]]
    rows += [
        [scenario, *(_entry(cells[scenario, kernel]) for kernel in kernels)]
        for scenario in scenarios
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if any(map(has_no_event, judged)):
        lines += ["", f"{NO_EVENT_SIGN}: {NO_EVENT}"]
    return [*lines, "", *reasons(judged), *stale, totals(judged)]


def _entry(judged: Judged) -> str:
    return f"{label(judged)} {NO_EVENT_SIGN}" if has_no_event(judged) else label(judged)


def _heading(kernel: str, release: str) -> str:
    if "/" in kernel or kernel == "here":
        return release.partition("-")[0] or kernel
    return kernel


def reasons(judged: Sequence[Judged]) -> list[str]:
    """Why each cell without a level has none; equal reasons share a line."""
    scenarios = len({one.cell.scenario for one in judged})
    shared: dict[str, dict[str, list[str]]] = {}
    for one in judged:
        lines = [f"*: tolerated by {entry}" for entry in one.tolerated]
        if one.outcome is not Outcome.SAME:
            lines.append(f"{_WORDS[one.outcome]}: {reason(one)}")
        for why in lines:
            where = shared.setdefault(why, {})
            where.setdefault(one.cell.scenario, []).append(one.cell.kernel)
    return [f"{why}: {_places(where, scenarios)}" for why, where in shared.items()]


def _places(where: dict[str, list[str]], scenarios: int) -> str:
    """Scenarios by the kernels that they share."""
    together: dict[str, list[str]] = {}
    for scenario, kernels in where.items():
        together.setdefault(", ".join(kernels), []).append(scenario)
    return "; ".join(
        f"{'all' if len(names) == scenarios > 1 else ', '.join(names)} on {kernels}"
        for kernels, names in together.items()
    )


def totals(judged: Sequence[Judged]) -> str:
    """Cells by outcome, in one line."""
    counts = Counter(one.outcome for one in judged)
    return f"{len(judged)} cells: " + ", ".join(f"{counts[o]} {o}" for o in Outcome)
