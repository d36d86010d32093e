"""The proposal's records, laid out by hand from docs/proposed-stream.md."""

from __future__ import annotations

import pytest

from fserr_bpf.codec.fanotify import decode, encode
from fserr_bpf.codec.proposed import (
    DetailedError,
    ErrorLocation,
    detailed_error_record,
    error_location_record,
    read_detailed_error,
    read_error_location,
)
from fserr_bpf.model.event import FsErrorEvent, Fsid, InfoRecord
from fserr_bpf.uapi.proposed import ErrorKind

DETAIL = DetailedError(ErrorKind.METADATA, 1, 4096, 0x18, 0xFFFFFFFF81234567)
EVENT_BYTES = bytes.fromhex(
    "74000000 03001800 00800000 00000000 ffffffff 07000000"
    "01001400 01000000 00000000 00000000 ff000000"
    "05000c00 75000000 01000000"
    "08002800 01000000 01000000 00000000 00100000 00000000 18000000 00000000 67452381 ffffffff"
    "09001400 9d130000 65787434 5f696765 74000000"
)


def test_event_with_both_records() -> None:
    records = (detailed_error_record(DETAIL), error_location_record(b"ext4_iget", 5021))
    data = encode(FsErrorEvent(Fsid(1, 0), None, 117, 1, 7, extra=records))
    assert data == EVENT_BYTES
    read, end = decode(data)
    assert end == len(data)
    assert isinstance(read, FsErrorEvent)
    assert [read_detailed_error(record) for record in read.extra] == [DETAIL, None]
    assert [read_error_location(record) for record in read.extra] == [
        None,
        ErrorLocation("ext4_iget", 5021),
    ]


@pytest.mark.parametrize(
    ("function", "length", "name"),
    [
        (b"", 12, ""),
        (b"abc", 12, "abc"),
        (b"abcd", 16, "abcd"),
        (b"x" * 47, 56, "x" * 47),
        (b"x" * 48, 56, "x" * 47),
        (b"a\x9b\n", 12, "a\\x9b\n"),
    ],
)
def test_function_is_cut_and_padded(function: bytes, length: int, name: str) -> None:
    record = error_location_record(function, 0)
    assert len(record.data) + 4 == length
    assert record.data[-1] == 0
    assert read_error_location(record) == ErrorLocation(name, 0)


def test_records_that_are_too_short_have_no_meaning() -> None:
    assert read_detailed_error(InfoRecord(8, 0, bytes(32))) is None
    assert read_error_location(InfoRecord(9, 0, bytes(4))) is None
