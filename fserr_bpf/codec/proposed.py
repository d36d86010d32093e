"""The proposal's two info records: details of an error, and the place in the source."""

from __future__ import annotations

from typing import NamedTuple

from fserr_bpf.codec.info import ALIGNMENT
from fserr_bpf.model.event import InfoRecord
from fserr_bpf.uapi.proposed import (
    DETAILED_ERROR,
    ERROR_LOCATION,
    FAN_EVENT_INFO_TYPE_DETAILED_ERROR,
    FAN_EVENT_INFO_TYPE_ERROR_LOCATION,
    MAX_FUNCTION,
)


class DetailedError(NamedTuple):
    """A record DETAILED_ERROR: ``kind`` is an ErrorKind, lengths and positions are bytes.

    ``block`` is in the file system's own unit; 0 stands for what is not known.
    """

    kind: int
    pos: int = 0
    length: int = 0
    block: int = 0
    failaddr: int = 0


class ErrorLocation(NamedTuple):
    """A record ERROR_LOCATION; ``line`` 0 is not known."""

    function: str
    line: int = 0


def detailed_error_record(detail: DetailedError) -> InfoRecord:
    """As the patched kernel's ``copy_info_records_to_user()`` writes it."""
    return InfoRecord(FAN_EVENT_INFO_TYPE_DETAILED_ERROR, 0, DETAILED_ERROR.pack(*detail))


def error_location_record(function: bytes, line: int) -> InfoRecord:
    """``function`` without its NUL, cut to MAX_FUNCTION bytes."""
    name = function[:MAX_FUNCTION] + b"\0"
    data = ERROR_LOCATION.pack(line) + name + bytes(-len(name) % ALIGNMENT)
    return InfoRecord(FAN_EVENT_INFO_TYPE_ERROR_LOCATION, 0, data)


def read_detailed_error(record: InfoRecord) -> DetailedError | None:
    """The meaning of ``record``; None for another type or one that is too short."""
    if record.info_type != FAN_EVENT_INFO_TYPE_DETAILED_ERROR:
        return None
    if len(record.data) < DETAILED_ERROR.size:
        return None
    return DetailedError(*DETAILED_ERROR.unpack_from(record.data))


def read_error_location(record: InfoRecord) -> ErrorLocation | None:
    """The meaning of ``record``; None for another type or one that is too short."""
    if record.info_type != FAN_EVENT_INFO_TYPE_ERROR_LOCATION:
        return None
    if len(record.data) <= ERROR_LOCATION.size:
        return None
    (line,) = ERROR_LOCATION.unpack_from(record.data)
    name = record.data[ERROR_LOCATION.size :].split(b"\0", 1)[0]
    return ErrorLocation(name.decode(errors="backslashreplace"), line)
