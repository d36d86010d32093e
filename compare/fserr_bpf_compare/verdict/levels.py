"""How far two transcripts agree, and where they do not. Everything here is pure.

A transcript is a sequence of reads; both sides were read at the same moments with the
same sizes.

L2 is for kernels whose workers deliver. What merges is open there, and a merged event
shows its first error and handle but counts others: ``EIO x2`` on one side is right
beside ``EIO, ENOSPC`` on the other. Sums by (fsid, handle, error) would call that a
difference, and sums by fsid alone would miss a wrong handle. So the question is whether
**one** set of errors can have made both streams. Per file system that is so if

1. the sums of error_count are equal: nothing was lost and nothing invented; and
2. the errors that must have happened are no more than that sum. Each event proves one
   error of the kind (handle, error) that it shows; both sides saw the same errors, so of
   each kind there were at least as many as the side that shows more of them has.

Without merging all counts are 1, and the rule demands the same kinds equally often.
Order and pid are not looked at: workers on several processors decide them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import NamedTuple

from fserr_bpf.codec.fanotify import decode, encode
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Event, FileHandle, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf_compare.verdict.cells import Difference, Level, Read

_NOTHING = "nothing"


def reached(real: Sequence[Read], emulated: Sequence[Read]) -> Level:
    """The strictest level at which both agree; DIFFERENT too if one cannot be decoded."""
    if list(real) == list(emulated):
        return Level.L0
    try:
        left, right = _pieces(real, Level.L1), _pieces(emulated, Level.L1)
    except DecodeError:
        return Level.DIFFERENT
    if left == right and [r.errno for r in real] == [r.errno for r in emulated]:
        return Level.L1
    return _loose(_summary(left), _summary(right))


def reached_one_by_one(pairs: Iterable[tuple[tuple[Event, bytes] | None, ...]]) -> Level:
    """The same of two streams whose n-th events come together, each with its bytes.

    One that has ended gives None. Where it was cut into reads is not known and not compared.
    Kept are the different things that the events show, not the events.
    """
    sides = _Summary(), _Summary()
    level = Level.L0
    for pair in pairs:
        canonical = []
        for side, piece in zip(sides, pair, strict=True):
            if piece:
                side.add(piece[0])
            canonical.append(encode(piece[0]._replace(extra=())) if piece else None)
        if canonical[0] != canonical[1]:
            level = Level.L2
        elif pair[0] != pair[1]:
            level = max(level, Level.L1)
    return level if level < Level.L2 else _loose(*sides)


def _loose(real: _Summary, emulated: _Summary) -> Level:
    """Of streams that are not the same event by event."""
    if not any(_by_sum(real, emulated)):
        return Level.L2
    if not any(_by_kind(real, emulated)):
        return Level.L3
    return Level.DIFFERENT


def differences(
    real: Sequence[Read], emulated: Sequence[Read], level: Level
) -> Iterator[Difference]:
    """What differs at ``level``, L0 to L3; at least one unless that level is reached.

    ``field`` is one of `FIELDS`.
    """
    if reached(real, emulated) <= level:
        return
    sides = []
    words = []
    for reads in (real, emulated):
        try:
            sides.append(_pieces(reads, level))
            words.append("whole events")
        except DecodeError as error:
            words.append(str(error))
    if len(sides) < 2:
        yield Difference(-1, "stream", *words)
        return
    left, right = sides
    if level <= Level.L1:
        found = list(_by_event(_flat(left), _flat(right)))
        yield from found
        if not any(difference.field == "event" for difference in found):
            yield from _by_read(_reads_in_words(real, left), _reads_in_words(emulated, right))
    elif level is Level.L2:
        yield from _by_sum(_summary(left), _summary(right))
    else:
        yield from _by_kind(_summary(left), _summary(right))


class _Piece(NamedTuple):
    """An event and its bytes; for L1 and above without unknown records, in canonical order."""

    event: Event
    data: bytes


def _pieces(reads: Sequence[Read], level: Level) -> list[list[_Piece]]:
    pieces = []
    for number, read in enumerate(reads, start=1):
        try:
            pieces.append(list(_of_read(read.data, level)))
        except DecodeError as error:
            raise DecodeError(error.offset, f"{error.reason} (read {number})") from error
    return pieces


def _of_read(data: bytes, level: Level) -> Iterator[_Piece]:
    at = 0
    while at < len(data):
        event, end = decode(data, at)
        if level is Level.L0:
            yield _Piece(event, data[at:end])
        else:
            event = event._replace(extra=())
            yield _Piece(event, encode(event))
        at = end


def _flat(reads: list[list[_Piece]]) -> list[_Piece]:
    return [piece for pieces in reads for piece in pieces]


FIELDS = frozenset(FsErrorEvent._fields) - {"origin", "id"} | {
    *("stream", "read", "event", "bytes", "mask")
}
"""What ``Difference.field`` can be: a field of an event, or one of these words.

``stream`` cannot be decoded; ``read`` was cut elsewhere or failed, compared only where
both sides have the same number of events; ``event`` is there on one side only; ``bytes``
differ where all fields are equal (order of info records, padding); ``mask`` of an event
of another type.
"""


def _by_event(real: list[_Piece], emulated: list[_Piece]) -> Iterator[Difference]:
    left, right = ([piece.data for piece in side] for side in (real, emulated))
    opcodes = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    for _, begin, end, other_begin, other_end in opcodes:
        pairs = zip_longest(real[begin:end], emulated[other_begin:other_end])
        for number, (one, other) in enumerate(pairs, start=begin):
            if one is None or other is None or type(one.event) is not type(other.event):
                words = (_NOTHING if p is None else _in_words(p.event) for p in (one, other))
                yield Difference(number, "event", *words)
            elif one.data != other.data:
                yield from _by_field(number, one, other)


def _by_field(number: int, one: _Piece, other: _Piece) -> Iterator[Difference]:
    if one.event == other.event:
        yield Difference(number, "bytes", one.data.hex(" ", -4), other.data.hex(" ", -4))
        return
    for field, left, right in zip(one.event._fields, one.event, other.event, strict=True):
        if left != right:
            yield Difference(number, field, _value(field, left), _value(field, right))


def _by_read(real: list[str], emulated: list[str]) -> Iterator[Difference]:
    for one, other in zip_longest(real, emulated, fillvalue=_NOTHING):
        if one != other:
            yield Difference(-1, "read", one, other)


def _reads_in_words(reads: Sequence[Read], pieces: list[list[_Piece]]) -> list[str]:
    return [
        f"read {number} of {read.size}: "
        + (f"errno {read.errno}" if read.errno else f"{len(events)} events")
        for number, (read, events) in enumerate(zip(reads, pieces, strict=True), start=1)
    ]


_Kind = tuple[FileHandle | None, int]


class _Shown(NamedTuple):
    """Of one file system: the sum of error_count, and the events by what they show."""

    total: int
    kinds: Counter[_Kind]


_NO_ERRORS = _Shown(0, Counter())


class _Summary:
    """What the events of one side show, whatever their order and number.

    ``others`` is what is no error, in words; how many there are depends on the reader's moments.
    """

    def __init__(self) -> None:
        self.others: dict[str, None] = {}
        self.shown: dict[Fsid, _Shown] = {}

    def add(self, event: Event) -> None:
        """Count it."""
        if not isinstance(event, FsErrorEvent):
            self.others[_in_words(event)] = None
            return
        total, kinds = self.shown.get(event.fsid) or _Shown(0, Counter())
        kinds[event.handle, event.error] += 1
        self.shown[event.fsid] = _Shown(total + event.error_count, kinds)

    def errors(self) -> dict[str, None]:
        """Each error and its file system, in words."""
        return {
            _error(fsid, error): None
            for fsid, (_, kinds) in self.shown.items()
            for _, error in kinds
        }


def _summary(reads: list[list[_Piece]]) -> _Summary:
    summary = _Summary()
    for piece in _flat(reads):
        summary.add(piece.event)
    return summary


def _by_sum(real: _Summary, emulated: _Summary) -> Iterator[Difference]:
    """L2, as the module's text says."""
    yield from _by_set(real.others, emulated.others, "event")
    left, right = real.shown, emulated.shown
    for fsid in dict.fromkeys([*left, *right]):
        one, other = left.get(fsid, _NO_ERRORS), right.get(fsid, _NO_ERRORS)
        if one.total != other.total:
            words = (f"x{side.total} on {fsid}" for side in (one, other))
            yield Difference(-1, "error_count", *words)
        elif one.kinds != other.kinds and (one.kinds | other.kinds).total() > one.total:
            for kind in one.kinds | other.kinds:
                if one.kinds[kind] != other.kinds[kind]:
                    counts = (side.kinds[kind] for side in (one, other))
                    words = (f"{count} events of {_kind(fsid, kind)}" for count in counts)
                    yield Difference(-1, "error", *words)


def _by_kind(real: _Summary, emulated: _Summary) -> Iterator[Difference]:
    """L3: the sets of (fsid, error), and of other events."""
    yield from _by_set(real.others, emulated.others, "event")
    yield from _by_set(real.errors(), emulated.errors(), "error")


def _by_set(real: dict[str, None], emulated: dict[str, None], field: str) -> Iterator[Difference]:
    for value in real | emulated:
        if value not in real:
            yield Difference(-1, field, _NOTHING, value)
        elif value not in emulated:
            yield Difference(-1, field, value, _NOTHING)


def _in_words(event: Event) -> str:
    if isinstance(event, FsErrorEvent):
        kind = _kind(event.fsid, (event.handle, event.error))
        return f"{kind}, x{event.error_count}, pid {event.pid}"
    if isinstance(event, OverflowEvent):
        return "FAN_Q_OVERFLOW"
    return f"event with mask {event.mask:#x}"


def _kind(fsid: Fsid, kind: _Kind) -> str:
    handle, error = kind
    return f"{_error(fsid, error)}, {_value('handle', handle)}"


def _error(fsid: Fsid, error: int) -> str:
    return f"{errno_name(error)} {error} on {fsid}"


def _value(field: str, value: object) -> str:
    if isinstance(value, FileHandle):
        return f"handle {value.handle_type:#x} {value.f_handle.hex(' ', -4)}"
    if field == "handle":
        return "superblock"
    if field == "error" and isinstance(value, int):
        return f"{errno_name(value)} {value}"
    if field == "extra" and isinstance(value, tuple):
        records = (f"type {r.info_type}: {r.data.hex(' ', -4)}" for r in value)
        return ", ".join(records) or _NOTHING
    return str(value)
