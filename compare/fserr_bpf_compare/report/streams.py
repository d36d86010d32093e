"""Two transcripts beside each other, as the page shows them: reads, events, fields, bytes.

Events that are equal on both sides are there once. They are paired as `verdict/levels.py`
pairs them, so the numbers of both agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from typing import NamedTuple

from fserr_bpf.outputs.errno import errno_name
from fserr_bpf_compare.report import decoded
from fserr_bpf_compare.report.decoded import Decoded, Part
from fserr_bpf_compare.verdict.cells import Read

_WORD = 4  # bytes
_LONGEST = 512  # bytes of one field that are shown
_EQUAL, _UNEQUAL = 8, 32  # events of one cell that are shown


class Run(NamedTuple):
    """Digits that all differ from the other side's, or that are all the same."""

    digits: str
    differs: bool


class Value(NamedTuple):
    """One side of a row: the field's bytes as digits, and its meaning."""

    digits: list[Run]
    words: str


class Row(NamedTuple):
    """A field of one event: one value if both sides have the same, or two."""

    offset: str
    name: str
    sides: list[Value]


class Record(NamedTuple):
    """The fields of a metadata or info record."""

    name: str
    rows: list[Row]


class Shown(NamedTuple):
    """An event of both sides, of one only, or a pair that differs.

    ``number`` counts the real events from 0, as differences do; ``titles`` are one or two.
    """

    number: int
    equal: bool
    reads: str
    titles: list[str]
    records: list[Record]


class ReadPair(NamedTuple):
    """What the n-th read(2) gave to either side, in words."""

    number: int
    size: str
    real: str
    emulated: str


class Streams(NamedTuple):
    """Everything of one cell; ``more`` says in words which events are left out."""

    reads: list[ReadPair]
    events: list[Shown]
    more: list[str]


class _Event(NamedTuple):
    read: int
    decoded: Decoded


_NOTHING = Decoded("nothing", [])


def streams(real: Sequence[Read], emulated: Sequence[Read]) -> Streams:
    """Show both transcripts."""
    left, right = _events(real), _events(emulated)
    shown: list[Shown] = []
    hidden = {True: 0, False: 0}
    room = {True: _EQUAL, False: _UNEQUAL}
    for number, one, other in _pairs(left, right):
        equal = one is not None and other is not None and one.decoded.data == other.decoded.data
        if room[equal]:
            room[equal] -= 1
            shown.append(_shown(number, one, other))
        else:
            hidden[equal] += 1
    words = {True: "more events that are equal", False: "more events that differ"}
    more = [f"{count} {words[equal]}" for equal, count in hidden.items() if count]
    return Streams(list(_reads(real, emulated)), shown, more)


def _events(reads: Sequence[Read]) -> list[_Event]:
    return [
        _Event(number, event)
        for number, read in enumerate(reads, start=1)
        for event in decoded.events(read.data)
    ]


def _pairs(
    left: list[_Event], right: list[_Event]
) -> Iterator[tuple[int, _Event | None, _Event | None]]:
    real, emulated = ([event.decoded.data for event in side] for side in (left, right))
    if real == emulated:
        yield from ((n, *pair) for n, pair in enumerate(zip(left, right, strict=True)))
        return
    opcodes = SequenceMatcher(None, real, emulated, autojunk=False).get_opcodes()
    for _, begin, end, first, last in opcodes:
        pairs = zip_longest(left[begin:end], right[first:last])
        yield from ((number, *pair) for number, pair in enumerate(pairs, start=begin))


def _shown(number: int, one: _Event | None, other: _Event | None) -> Shown:
    ours, theirs = (_NOTHING if e is None else e.decoded for e in (one, other))
    reads = _once(*(str(e.read) if e else "none" for e in (one, other)))
    parts = zip_longest(ours.parts, theirs.parts, fillvalue=Part("", 0, b""))
    return Shown(
        number,
        ours.data == theirs.data,
        " | ".join(reads),
        _once(ours.title, theirs.title),
        [Record(" | ".join(_names(*pair)), list(_rows(*pair))) for pair in parts],
    )


def _once(one: str, other: str) -> list[str]:
    return [one] if one == other else [one, other]


def _names(one: Part, other: Part) -> list[str]:
    return _once(one.name or other.name, other.name or one.name)


def _rows(one: Part, other: Part) -> Iterator[Row]:
    for left, right in zip_longest(decoded.fields(one), decoded.fields(other)):
        present = [field for field in (left, right) if field is not None]
        name = " | ".join(_once(present[0].name, present[-1].name))
        offset = " | ".join(_once(str(present[0].offset), str(present[-1].offset)))
        data = [field.data if field else b"" for field in (left, right)]
        words = [field.value if field else "" for field in (left, right)]
        if data[0] == data[1] and words[0] == words[1]:
            yield Row(offset, name, [Value(_runs(data[0], data[0]), words[0])])
        else:
            digits = (_runs(*data), _runs(*reversed(data)))
            yield Row(offset, name, [Value(*pair) for pair in zip(digits, words, strict=True)])


def _runs(data: bytes, beside: bytes) -> list[Run]:
    """The digits of ``data`` in words of four bytes, by whether they are those of ``beside``."""
    runs = []
    numbered = enumerate(data[:_LONGEST])
    for differs, group in groupby(
        numbered, key=lambda pair: beside[pair[0] :][:1] != data[pair[0] :][:1]
    ):
        digits = ""
        for at, byte in group:
            digits += " " * (at > 0 and at % _WORD == 0) + f"{byte:02x}"
        runs.append(Run(digits, differs))
    if len(data) > _LONGEST:
        runs.append(
            Run(f" and {len(data) - _LONGEST} bytes more", data[_LONGEST:] != beside[_LONGEST:])
        )
    return runs


def _reads(real: Sequence[Read], emulated: Sequence[Read]) -> Iterator[ReadPair]:
    for number, (one, other) in enumerate(zip_longest(real, emulated), start=1):
        present = [read for read in (one, other) if read is not None]
        size = " | ".join(_once(_size(present[0]), _size(present[-1])))
        yield ReadPair(number, size, _result(one), _result(other))


def _size(read: Read) -> str:
    """Size 0 without an error stands for reading until the queue was empty."""
    return str(read.size) if read.size or read.errno else "all"


def _result(read: Read | None) -> str:
    if read is None:
        return "no read"
    if read.errno:
        return errno_name(read.errno)
    count = sum(1 for _ in decoded.events(read.data))
    return f"{len(read.data)} bytes, {count} event{'' if count == 1 else 's'}"
