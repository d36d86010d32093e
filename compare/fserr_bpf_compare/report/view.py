"""What the page's template shows, as plain values: the matrix, and each cell's detail."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from fserr_bpf_compare.report import terminal
from fserr_bpf_compare.report.imagetable import Unseen, unseen
from fserr_bpf_compare.report.run import Run
from fserr_bpf_compare.report.streams import Streams, streams
from fserr_bpf_compare.scenarios import SCENARIOS
from fserr_bpf_compare.verdict.cells import Cell, Difference, Judged, Level, Outcome, Witness

HERE = "here"
_DIFFERENCES = 100  # of one cell that are shown
_LINES = 60  # of one cell's kernel log that are shown
_TOLD = ("read", "remount", "write")  # steps of an image that its row shows
_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

# Outcomes in the order of the page, each with the sign that tells it apart without colour.
SIGNS = {Outcome.DIFFERENT: "≠", Outcome.BROKEN: "!", Outcome.NOT_RUN: "○", Outcome.SAME: "="}
LEVELS = {
    Level.L0: "the same bytes, read by read",
    Level.L1: "the same after info records are reordered and unknown ones skipped",
    Level.L2: "one set of errors can have made both streams: the same sums of error_count",
    Level.L3: "the same set of file systems and errors",
}


class Total(NamedTuple):
    """How many cells ended in ``outcome``."""

    outcome: Outcome
    sign: str
    cells: int


class Column(NamedTuple):
    """A kernel: its short name, the whole one, uname's release, and what was compared how."""

    name: str
    kernel: str
    release: str
    basis: str


class Mark(NamedTuple):
    """A cell of the matrix: ``label`` is the level or the outcome's word.

    ``empty`` says that neither side sent anything, which also is the same.
    """

    target: str
    outcome: Outcome
    sign: str
    label: str
    empty: bool


class Line(NamedTuple):
    """A row of the matrix, one mark for each kernel; None where there is no such cell."""

    scenario: str
    summary: str
    marks: list[Mark | None]


class Area(NamedTuple):
    """The scenarios of one area."""

    name: str
    lines: list[Line]


class Detail(NamedTuple):
    """Everything about one cell."""

    mark: Mark
    judged: Judged
    cell: Cell
    summary: str
    column: Column
    reached: str
    note: str
    differences: Sequence[Difference]
    more_differences: int
    log: Sequence[str]
    streams: Streams
    again: str


class Section(NamedTuple):
    """The details of one outcome, by kernel."""

    total: Total
    kernels: list[tuple[Column, list[Detail]]]


class Page(NamedTuple):
    """The whole page."""

    run: Run
    command: str
    duration: str
    verdict: str
    totals: list[Total]
    columns: list[Column]
    areas: list[Area]
    unseen: list[Unseen]
    sections: list[Section]


def page(judged: Sequence[Judged], run: Run) -> Page:
    """Arrange ``judged``; kernels and scenarios keep their order."""
    counts = Counter(one.outcome for one in judged)
    columns = {
        kernel: _column(kernel, [one for one in judged if one.cell.kernel == kernel])
        for kernel in dict.fromkeys(one.cell.kernel for one in judged)
    }
    marks = [_mark(number, one) for number, one in enumerate(judged, start=1)]
    details = [
        _detail(mark, one, columns[one.cell.kernel], run)
        for mark, one in zip(marks, judged, strict=True)
    ]
    return Page(
        run=run,
        command=shlex.join(run.command),
        duration=duration(run.seconds),
        verdict=_verdict(counts),
        totals=[_total(outcome, counts) for outcome in Outcome],
        columns=list(columns.values()),
        areas=_areas(details, list(columns)),
        unseen=unseen(judged),
        sections=[
            _section(_total(outcome, counts), [d for d in details if d.mark.outcome is outcome])
            for outcome in SIGNS
            if counts[outcome]
        ],
    )


def _column(kernel: str, judged: Sequence[Judged]) -> Column:
    release = next((one.cell.release for one in judged if one.cell.release), "")
    compared = [one.cell for one in judged if one.reached is not None]
    ways = dict.fromkeys(f"{cell.stream}, {cell.basis}" for cell in compared)
    name = kernel.rpartition("/")[2]
    return Column(name, kernel, release, "; ".join(ways) or "nothing compared")


def _mark(number: int, judged: Judged) -> Mark:
    outcome = judged.outcome
    empty = terminal.has_no_event(judged)
    return Mark(f"cell-{number}", outcome, SIGNS[outcome], terminal.label(judged), empty)


def _detail(mark: Mark, judged: Judged, column: Column, run: Run) -> Detail:
    cell = judged.cell
    log = cell.log
    if len(log) > _LINES:
        half = _LINES // 2
        left_out = f"… {len(log) - 2 * half} lines are left out here …"
        log = (*log[:half], left_out, *log[-half:])
    return Detail(
        mark=mark,
        judged=judged,
        cell=cell,
        summary=_summary(cell),
        column=column,
        reached=_reached(judged),
        note=_note(judged, mark),
        differences=judged.differences[:_DIFFERENCES],
        more_differences=max(0, len(judged.differences) - _DIFFERENCES),
        log=log,
        streams=streams(cell.real, cell.emulated),
        again=_again(cell, run),
    )


def _reached(judged: Judged) -> str:
    if judged.reached is None:
        return "nothing was compared"
    if judged.reached is Level.DIFFERENT:
        return "no level"
    return f"{judged.reached.name}: {LEVELS[judged.reached]}"


def _note(judged: Judged, mark: Mark) -> str:
    """What a reader of a cell that is the same should know."""
    if mark.empty:
        words = terminal.NO_EVENT_OF_IMAGE if judged.cell.image else terminal.NO_EVENT
        return f"{words.capitalize()}."
    if judged.cell.witness == Witness.LOG:
        return (
            "No group of the kernel sends this stream: each error in its log is an event of ours."
        )
    if judged.outcome is not Outcome.SAME or judged.cell.real == judged.cell.emulated:
        return ""
    if judged.tolerated:
        return "The bytes are not equal: what is marked below is tolerated by a known entry."
    return f"The bytes are not equal, and {judged.promised.name} does not ask for that."


def _again(cell: Cell, run: Run) -> str:
    """The command that plays this cell alone."""
    where = ["--here"] if cell.kernel == HERE else ["--kernel", cell.kernel]
    if "/" in cell.kernel and "--modules" in run.command[:-1]:
        where += ["--modules", run.command[run.command.index("--modules") + 1]]
    stream = ["--stream", cell.stream] if cell.stream else []
    what = ["--images", cell.image] if cell.image else ["--scenario", cell.scenario]
    command = ["sudo", "fserr-bpf", "compare", *where, *what, *stream]
    return shlex.join(command)


def _areas(details: Sequence[Detail], kernels: Sequence[str]) -> list[Area]:
    cells: dict[str, dict[str, Detail]] = {}
    for detail in details:
        cells.setdefault(detail.cell.scenario, {})[detail.cell.kernel] = detail
    areas: dict[str, list[Line]] = {}
    for scenario, by_kernel in cells.items():
        found = [by_kernel.get(kernel) for kernel in kernels]
        summary = next(iter(by_kernel.values())).summary
        area = _area(next(iter(by_kernel.values())).cell)
        line = Line(scenario, summary, [detail and detail.mark for detail in found])
        areas.setdefault(area, []).append(line)
    return [Area(*area) for area in areas.items()]


def _summary(cell: Cell) -> str:
    """What the cell is about; of an image, what was done with it."""
    if cell.image:
        return "; ".join(step for step in cell.trigger if step.startswith(_TOLD))
    return _BY_NAME[cell.scenario].summary if cell.scenario in _BY_NAME else ""


def _area(cell: Cell) -> str:
    if cell.image:
        return f"images of {cell.fstype}"
    return _BY_NAME[cell.scenario].area if cell.scenario in _BY_NAME else "other"


def _section(total: Total, details: Sequence[Detail]) -> Section:
    groups = groupby(details, key=lambda detail: detail.column)
    return Section(total, [(column, list(group)) for column, group in groups])


def _total(outcome: Outcome, counts: Counter[Outcome]) -> Total:
    return Total(outcome, SIGNS[outcome], counts[outcome])


def _verdict(counts: Counter[Outcome]) -> str:
    same, different, broken = (
        counts[outcome] for outcome in (Outcome.SAME, Outcome.DIFFERENT, Outcome.BROKEN)
    )
    compared = same + different
    if not compared:
        words = "Nothing was compared"
    elif different:
        words = f"{different} of {compared} compared cells {_are(different)} different"
    elif compared == 1:
        words = "The compared cell is the same at the promised level"
    else:
        words = f"All {compared} compared cells are the same at the promised level"
    return f"{words}; {broken} {_are(broken)} broken." if broken else f"{words}."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def duration(seconds: float) -> str:
    """As people say it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
