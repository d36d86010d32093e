"""The info records of one fanotify event: walk them, check them, pack them.

Every record starts with ``struct fanotify_event_info_header``. The walk refuses
lengths that are short, unaligned or overrun the event, so it always ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import InfoRecord
from fserr_bpf.uapi.fanotify import INFO_HEADER

ALIGNMENT = 4
MAX_EVENT_LEN = 65536
"""Longest event believed, in bytes: a reader of a pipe must not wait for garbage.

The longest known event, a rename with two names, is below 900 bytes.
"""

Bytes = bytes | bytearray | memoryview


class Located(NamedTuple):
    """An info record, its bytes with the header, and its position in the stream."""

    at: int
    record: InfoRecord
    whole: bytes


def bad_field(event_at: int, field: str, field_at: int, value: int, why: str) -> DecodeError:
    """The error of the event at ``event_at``; both positions count from the stream's start."""
    return DecodeError(event_at, f"{field} at byte {field_at} is {value}, {why}")


def info_records(data: Bytes, start: int, end: int, event_at: int, base: int) -> Iterator[Located]:
    """Yield the records in ``data[start:end]``.

    ``base`` is the stream offset of ``data[0]`` and ``event_at`` that of the event.
    Raises DecodeError at the first bad header.
    """
    while start < end:
        at = base + start
        if end - start < INFO_HEADER.size:
            raise DecodeError(event_at, f"info record at byte {at} has no room for a header")
        info_type, pad, length = INFO_HEADER.unpack_from(data, start)
        if length < INFO_HEADER.size:
            raise bad_field(event_at, "info len", at + 2, length, "less than its header")
        if length % ALIGNMENT:
            raise bad_field(event_at, "info len", at + 2, length, "not a multiple of 4")
        if length > end - start:
            why = f"more than the {end - start} bytes left in the event"
            raise bad_field(event_at, "info len", at + 2, length, why)
        whole = bytes(data[start : start + length])
        yield Located(at, InfoRecord(info_type, pad, whole[INFO_HEADER.size :]), whole)
        start += length


def pack_records(records: Sequence[InfoRecord], reserved: Collection[int], room: int) -> bytes:
    """Return ``records`` as at most ``room`` bytes.

    Raises ValueError for a record that would not come back as it is: of a type in
    ``reserved``, which the event has fields for, or of an unaligned length.
    """
    parts = []
    for info_type, pad, data in records:
        if info_type in reserved:
            raise ValueError(f"info type {info_type} has fields of its own in this event")
        if len(data) % ALIGNMENT:
            raise ValueError(f"info data of {len(data)} bytes, not a multiple of 4")
        parts.append(INFO_HEADER.pack(info_type, pad, INFO_HEADER.size + len(data)) + data)
    packed = b"".join(parts)
    if len(packed) > room:
        raise ValueError(f"info records of {len(packed)} bytes, only {room} fit an event")
    return packed
