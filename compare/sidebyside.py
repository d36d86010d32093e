"""Two fanotify byte streams beside each other: record by record, differing bytes marked.

Everything here is pure: bytes in, lines of text out. Whether two streams agree is for
``==`` to say; this shows people what the bytes are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from fserr_bpf.codec.fanotify import FS_ERROR_TYPES, decode
from fserr_bpf.codec.handles import inode_of
from fserr_bpf.codec.info import info_records
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.uapi.fanotify import METADATA

_PER_LINE = 16  # bytes
_WORD = 4  # bytes; all fields but the mask are words or parts of one
_HEX = 2 * _PER_LINE + _PER_LINE // _WORD - 1  # columns of a full line
_NAMES = 10  # columns
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


class _Part(NamedTuple):
    """One record of an event: metadata, or an info record with its header."""

    name: str
    data: bytes


class _Decoded(NamedTuple):
    """An event in words, and the records that its bytes are made of."""

    title: str
    parts: list[_Part]


def side_by_side(
    left: bytes, right: bytes, headings: tuple[str, str], *, colour: bool = False
) -> Iterator[str]:
    """Yield lines of at most 100 columns, the n-th events of both streams beside each other.

    Below a line that differs ``^^`` marks each differing byte; ``colour`` makes these
    red for a terminal. A stream that cannot be decoded is shown as bytes from there on.
    """
    yield _row("", *headings).rstrip()
    pairs = zip_longest(_events(left), _events(right), fillvalue=_Decoded("nothing", []))
    for number, (ours, theirs) in enumerate(pairs, start=1):
        yield f"event {number}: {ours.title}"
        if theirs.title != ours.title:
            yield f"     beside: {theirs.title}"
        for one, other in zip_longest(ours.parts, theirs.parts, fillvalue=_Part("", b"")):
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


def _events(stream: bytes) -> Iterator[_Decoded]:
    start = 0
    while start < len(stream):
        try:
            event, end = decode(stream, start)
        except DecodeError as error:
            yield _Decoded(f"not an event ({error})", [_Part("bytes", stream[start:])])
            return
        yield _Decoded(f"{_in_words(event)}, {end - start} bytes", list(_parts(stream, start, end)))
        start = end


def _parts(stream: bytes, start: int, end: int) -> Iterator[_Part]:
    info = start + METADATA.unpack_from(stream, start)[3]  # metadata_len
    yield _Part("metadata", stream[start:info])
    for located in info_records(stream, info, end, start, 0):
        number = located.record.info_type
        name, _ = FS_ERROR_TYPES.get(number, (f"type {number}", 0))
        yield _Part(name, located.whole)


def _in_words(event: Event) -> str:
    if not isinstance(event, FsErrorEvent):
        return type(event).__name__
    inode = inode_of(event.handle) if event.handle else None
    place = f"ino {inode.ino} gen {inode.generation}" if inode else "superblock"
    if event.handle and not inode:
        place = f"handle of type {event.handle.handle_type:#x}"
    return f"{errno_name(event.error)} {event.error} x{event.error_count}, {place}, pid {event.pid}"
