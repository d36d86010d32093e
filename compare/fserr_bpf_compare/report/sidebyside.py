"""Two fanotify streams beside each other: record by record, differing bytes marked.

Everything here is pure: events in, lines of text out. Whether two streams agree is for
``==`` to say; this shows people what the bytes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from fserr_bpf_compare.report.decoded import Decoded, Part

_PER_LINE = 16  # bytes
_WORD = 4  # bytes; all fields but the mask are words or parts of one
_HEX = 2 * _PER_LINE + _PER_LINE // _WORD - 1  # columns of a full line
_NAMES = 10  # columns
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def side_by_side(
    left: Iterable[Decoded],
    right: Iterable[Decoded],
    headings: tuple[str, str],
    *,
    colour: bool = False,
) -> Iterator[str]:
    """Yield lines of at most 100 columns, the n-th events of both streams beside each other.

    Below a line that differs ``^^`` marks each differing byte; ``colour`` makes these
    red for a terminal.
    """
    yield _row("", *headings).rstrip()
    pairs = zip_longest(left, right, fillvalue=Decoded("nothing", []))
    for number, (ours, theirs) in enumerate(pairs, start=1):
        yield f"event {number}: {ours.title}"
        if theirs.title != ours.title:
            yield f"     beside: {theirs.title}"
        for one, other in zip_longest(ours.parts, theirs.parts, fillvalue=Part("", 0, b"")):
            yield from _record(one.name or other.name, one.data, other.data, colour=colour)


def _record(name: str, left: bytes, right: bytes, *, colour: bool) -> Iterator[str]:
    for start in range(0, max(len(left), len(right)), _PER_LINE):
        one, other = (data[start : start + _PER_LINE] for data in (left, right))
        yield _row("" if start else name, _hex(one), _hex(other)).rstrip()
        if one != other:
            differs = [a != b for a, b in zip_longest(one, other)]
            marks = _words("^^" if bad else "  " for bad in differs)
            row = _row("", marks, marks).rstrip()
            yield f"{_RED}{row}{_PLAIN}" if colour else row


def _row(name: str, left: str, right: str) -> str:
    return f"  {name:<{_NAMES}}{left:<{_HEX}}  |  {right}"


def _hex(data: bytes) -> str:
    return _words(f"{byte:02x}" for byte in data)


def _words(digits: Iterator[str]) -> str:
    pairs = list(digits)
    return " ".join("".join(pairs[at : at + _WORD]) for at in range(0, len(pairs), _WORD))
