"""What a terminal shows: a line while the harness works, then kernels by scenarios."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Sequence

from compare.cells import Judged, Outcome
from fserr_bpf.closing import Closing

_SHOWN = 4  # differences of one cell; the report has them all
_SILENT = "∅"
_WORDS = {
    Outcome.SAME: "same",
    Outcome.DIFFERENT: "DIFFERENT",
    Outcome.BROKEN: "BROKEN",
    Outcome.NOT_RUN: "not run",
}


class Progress(Closing):
    """One line on standard error; without a terminal a line for each kernel that ends.

    A cell that is not the same is said at once either way.
    """

    def __init__(self, kernels: Sequence[str], scenarios: int) -> None:
        self._counts = dict.fromkeys(kernels, 0)
        self._scenarios = scenarios
        self._live = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._show("")

    def close(self) -> None:
        """Take the line away."""
        if self._live:
            self._write("\r\x1b[K")

    def heard(self, judged: Judged) -> None:
        """A cell has come; from any thread."""
        with self._lock:
            kernel = judged.cell.kernel
            self._counts[kernel] += 1
            if judged.outcome in (Outcome.DIFFERENT, Outcome.BROKEN):
                self._write("\r\x1b[K" if self._live else "")
                self._write(f"{name(judged)}: {_WORDS[judged.outcome]}: {reason(judged)}\n")
            self._show(judged.cell.scenario)
            if not self._live and self._counts[kernel] == self._scenarios:
                self._write(f"compare: {kernel}: {self._scenarios} scenarios\n")

    def _show(self, last: str) -> None:
        if self._live:
            done = ", ".join(
                f"{kernel} {n}/{self._scenarios}" for kernel, n in self._counts.items()
            )
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


def silent(judged: Judged) -> bool:
    """Whether neither side sent an event; that the cause was real is in the kernel's log."""
    cell = judged.cell
    return judged.outcome is Outcome.SAME and not any(r.data for r in cell.real + cell.emulated)


def table(judged: Sequence[Judged], stale: Sequence[str]) -> list[str]:
    """Scenarios by kernels, what is behind each cell that has no level, and the totals."""
    kernels = list(dict.fromkeys(j.cell.kernel for j in judged))
    every = list(dict.fromkeys(j.cell.scenario for j in judged))
    # what nobody could run is in the reasons only
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
    if any(map(silent, judged)):
        lines += ["", f"{_SILENT}: rightly silent on both sides"]
    return [*lines, "", *_reasons(judged, len(every)), *stale, _totals(judged)]


def _entry(judged: Judged) -> str:
    return f"{label(judged)} {_SILENT}" if silent(judged) else label(judged)


def _heading(kernel: str, release: str) -> str:
    if "/" in kernel or kernel == "here":
        return release.partition("-")[0] or kernel
    return kernel


def _reasons(judged: Sequence[Judged], scenarios: int) -> list[str]:
    """What each cell without a level has to say; equal reasons share a line."""
    shared: dict[str, dict[str, list[str]]] = {}
    for one in judged:
        said = [f"*: tolerated by {entry}" for entry in one.tolerated]
        if one.outcome is not Outcome.SAME:
            said.append(f"{_WORDS[one.outcome]}: {reason(one)}")
        for why in said:
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


def _totals(judged: Sequence[Judged]) -> str:
    counts = Counter(one.outcome for one in judged)
    return f"{len(judged)} cells: " + ", ".join(f"{counts[o]} {o}" for o in Outcome)
