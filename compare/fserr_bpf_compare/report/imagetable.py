"""What a terminal shows of images: how many of each file system did what, then what differs.

Hundreds of rows that say "same" would hide the one that does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fserr_bpf_compare.report import terminal
from fserr_bpf_compare.verdict.cells import Judged, Outcome
from fserr_bpf_compare.verdict.unheard import Unheard, together

_SHOWN = 3  # images of one function
_WIDTH = 100


class Unseen(NamedTuple):
    """Errors in a kernel's log that no event has, of all its images together."""

    kernel: str
    rows: list[tuple[Unheard, list[str]]]
    mounting: int


def table(judged: Sequence[Judged]) -> list[str]:
    """Counts by file system and kernel, why cells are not the same, what the log has beyond."""
    rows = [["kernel", "images", "of", *Outcome, "with events", "in proposed"]]
    for kernel in dict.fromkeys(one.cell.kernel for one in judged):
        for fstype in dict.fromkeys(one.cell.fstype for one in judged):
            some = [j for j in judged if (j.cell.kernel, j.cell.fstype) == (kernel, fstype)]
            outcomes = Counter(one.outcome for one in some)
            counts = (
                len(some),
                fstype,
                *(outcomes[o] for o in Outcome),
                sum(terminal.has_event(one.cell) for one in some),
                sum(bool(one.cell.heard) for one in some),
            )
            rows.append([kernel, *map(str, counts)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(w.ljust(width) for w, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for one in unseen(judged):
        lines += ["", *_unseen_lines(one)]
    return [*lines, "", *terminal.reasons(judged), terminal.totals(judged)]


def unseen(judged: Iterable[Judged]) -> list[Unseen]:
    """For each kernel whose log has errors without an event; in the order of the cells."""
    by_kernel: dict[str, list[Judged]] = {}
    for one in judged:
        by_kernel.setdefault(one.cell.kernel, []).append(one)
    found = []
    for kernel, cells in by_kernel.items():
        rows = together((one.cell.scenario, one.cell.unheard) for one in cells)
        mounting = sum(one.cell.mounting for one in cells)
        if rows or mounting:
            found.append(Unseen(kernel, rows, mounting))
    return found


def _unseen_lines(one: Unseen) -> list[str]:
    lines = [f"errors in the log of {one.kernel} without an event of the stream proposed:"]
    for unheard, images in one.rows:
        shown = ", ".join(images[:_SHOWN])
        more = f" and {len(images) - _SHOWN} more" if len(images) > _SHOWN else ""
        name = unheard.function[:_WIDTH]
        lines.append(f"  {unheard.lines} x {name}: {shown}{more}")
    lines.append(f"  {one.mounting} from before the mount was complete: nothing can be marked then")
    return lines
