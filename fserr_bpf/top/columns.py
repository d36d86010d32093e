"""Columns of fixed width in whatever room there is: nothing jumps when contents change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

ELLIPSIS = "…"
_GAP = "  "


class Column(NamedTuple):
    """``width`` is in cells, the least if it ``grows``. ``rank`` 0 always stays, higher goes first.

    ``right`` is for numbers.
    """

    title: str
    width: int
    rank: int = 0
    grows: bool = False
    right: bool = False


def fit(columns: Sequence[Column], room: int) -> list[int]:
    """The width of each column, 0 for what has no room. The ones that grow share what is left."""
    shown = [True] * len(columns)

    def spare() -> int:
        widths = [c.width + len(_GAP) for c, on in zip(columns, shown, strict=True) if on]
        return room - (sum(widths) - len(_GAP))

    for index in sorted(range(len(columns)), key=lambda i: -columns[i].rank):
        if spare() >= 0 or not columns[index].rank:
            break
        shown[index] = False
    growing = [i for i, c in enumerate(columns) if shown[i] and c.grows]
    left = spare()
    widths = [c.width if on else 0 for c, on in zip(columns, shown, strict=True)]
    for turn, index in enumerate(growing):
        share = left // (len(growing) - turn)
        widths[index] = max(widths[index] + share, 1)
        left -= share
    return widths


def join(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    """One row without blanks at its end; ``cells`` are printable already."""
    parts = [
        pad(cell, width, right=column.right)
        for column, width, cell in zip(columns, widths, cells, strict=True)
        if width
    ]
    return _GAP.join(parts).rstrip()


def pad(text: str, width: int, *, right: bool = False) -> str:
    """``text`` in exactly ``width`` cells; what is too long loses its middle."""
    text = shorten(text, width)
    blank = " " * (width - cell_len(text))
    return blank + text if right else text + blank


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells, without its middle: ends of names matter more."""
    if cell_len(text) <= width:
        return text
    if width < 2:
        return ELLIPSIS[:width]
    # half a wide character becomes a space
    tail = set_cell_size(text[::-1], (width - 1) // 2)[::-1].lstrip()
    head = set_cell_size(text, width - 1 - cell_len(tail)).rstrip()
    return head + ELLIPSIS + tail
