"""Bytes that a 6.18 kernel wrote, read by hand; and every way to refuse others."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from fserr_bpf.codec.fanotify import Decoder, decode, encode
from fserr_bpf.codec.info import info_records
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import (
    Event,
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    OtherEvent,
    OverflowEvent,
)

# ext4 with uuid 11223344-5566-7788-99aa-bbccddeeff00: both halves xor to eight times 0x88
EXT4 = Fsid(0x88888888, 0x88888888)
FSID = "8888888888888888"

SB_ERROR = bytes.fromhex(
    "38000000 03001800 00800000 00000000 ffffffff 130f0000"
    "01001400" + FSID + "00000000 ff000000"
    "05000c00 75000000 01000000"
)
INODE_ERROR = bytes.fromhex(
    "40000000 03001800 00800000 00000000 ffffffff 62190000"
    "01001c00" + FSID + "08000000 01000000 0e000000 acb52e61"
    "05000c00 75000000 01000000"
)

CAPTURED: dict[str, tuple[bytes, Event]] = {
    "superblock, by trigger_fs_error": (SB_ERROR, FsErrorEvent(EXT4, None, 117, 1, 3859)),
    "inode 14": (
        INODE_ERROR,
        FsErrorEvent(EXT4, FileHandle(1, struct.pack("<II", 14, 0x612EB5AC)), 117, 1, pid=6498),
    ),
    "directory 2049, EFSBADCRC": (
        bytes.fromhex(
            "40000000 03001800 00800000 00000000 ffffffff 62190000"
            "01001c00" + FSID + "08000000 01000000 01080000 6e578791"
            "05000c00 4a000000 01000000"
        ),
        FsErrorEvent(EXT4, FileHandle(1, struct.pack("<II", 2049, 0x9187576E)), 74, 1, pid=6498),
    ),
    "pidfd 4": (
        bytes.fromhex(
            "40000000 03001800 00800000 00000000 ffffffff 130f0000"
            "01001400" + FSID + "00000000 ff000000"
            "04000800 04000000"
            "05000c00 75000000 01000000"
        ),
        FsErrorEvent(EXT4, None, 117, 1, 3859, pidfd=4),
    ),
    "dead reporter, FAN_REPORT_FD_ERROR": (
        bytes.fromhex(
            "40000000 03001800 00800000 00000000 f7ffffff 130f0000"
            "01001400" + FSID + "00000000 ff000000"
            "04000800 fdffffff"
            "05000c00 75000000 01000000"
        ),
        FsErrorEvent(EXT4, None, 117, 1, 3859, fd=-9, pidfd=-3),
    ),
    "remount,abort": (
        bytes.fromhex(
            "38000000 03001800 00800000 00000000 ffffffff 130f0000"
            "01001400" + FSID + "00000000 ff000000"
            "05000c00 6c000000 01000000"
        ),
        FsErrorEvent(EXT4, None, 108, 1, 3859),
    ),
    "overflow": (
        bytes.fromhex("18000000 03001800 00400000 00000000 ffffffff 00000000"),
        OverflowEvent(),
    ),
    "overflow of a pidfd group": (
        bytes.fromhex("20000000 03001800 00400000 00000000 ffffffff 00000000 04000800 ffffffff"),
        OverflowEvent(pidfd=-1),
    ),
    "xfs inode 128 on 7:1": (
        bytes.fromhex(
            "44000000 03001800 00800000 00000000 ffffffff 03030000"
            "01002000 01070000 00000000 0c000000 81000000 8000000000000000 2a000000"
            "05000c00 75000000 03000000"
        ),
        FsErrorEvent(Fsid(0x701, 0), FileHandle(0x81, struct.pack("<QI", 128, 42)), 117, 3, 771),
    ),
    "btrfs inode 257 of root 5": (
        bytes.fromhex(
            "4c000000 03001800 00800000 00000000 ffffffff 03030000"
            "01002800 78563412 efbeadde 14000000 4d000000"
            "0101000000000000 0500000000000000 07000000"
            "05000c00 fbffffff 01000000"
        ),
        FsErrorEvent(
            Fsid(0x12345678, 0xDEADBEEF),
            FileHandle(0x4D, struct.pack("<QQI", 257, 5, 7)),
            -5,
            1,
            771,
        ),
    ),
    "FAN_CREATE, not interpreted": (
        bytes.fromhex(
            "2c000000 03001800 00010000 00000000 ffffffff 03030000"
            "03001400" + FSID + "00000000 ff000000"
        ),
        OtherEvent(0x100, 771, -1, (InfoRecord(3, 0, bytes.fromhex(FSID + "00000000ff000000")),)),
    ),
    "unknown info record 8": (
        bytes.fromhex(
            "40000000 03001800 00800000 00000000 ffffffff 130f0000"
            "01001400" + FSID + "00000000 ff000000"
            "05000c00 75000000 01000000"
            "08070800 01020304"
        ),
        FsErrorEvent(EXT4, None, 117, 1, 3859, extra=(InfoRecord(8, 7, b"\1\2\3\4"),)),
    ),
}


@pytest.mark.parametrize("case", CAPTURED)
def test_captured_bytes_both_ways(case: str) -> None:
    data, event = CAPTURED[case]
    assert decode(data) == (event, len(data))
    assert encode(event) == data


def test_captured_bytes_as_one_stream() -> None:
    data = b"".join(data for data, _ in CAPTURED.values())
    decoder = Decoder()
    assert list(decoder.feed(data)) == [event for _, event in CAPTURED.values()]
    decoder.close()


def test_a_handle_that_is_no_multiple_of_four_is_padded() -> None:
    # fanotify_fid_info_len() rounds the record, not handle_bytes
    event = FsErrorEvent(EXT4, FileHandle(0x51, b"abcde"), 5, 1, 1)
    data = encode(event)
    assert data[24:28] == bytes.fromhex("01001c00")
    assert data[36:52] == bytes.fromhex("05000000 51000000") + b"abcde\0\0\0"
    assert decode(data) == (event, 64)


def put(data: bytes, at: int, layout: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


FID, PIDFD, ERROR = SB_ERROR[24:44], bytes.fromhex("0400080004000000"), SB_ERROR[44:]


def event_of(*records: bytes, mask: int = 0x8000) -> bytes:
    body = b"".join(records)
    return struct.pack("<IBBHQii", 24 + len(body), 3, 0, 24, mask, -1, 1) + body


REFUSED: dict[str, tuple[bytes, str]] = {
    "event_len zero": (put(SB_ERROR, 0, "<I", 0), "event_len at byte 64 is 0,"),
    "event_len 20": (put(SB_ERROR, 0, "<I", 20), "event_len at byte 64 is 20,"),
    "event_len unaligned": (put(SB_ERROR, 0, "<I", 58), "event_len at byte 64 is 58,"),
    "event_len absurd": (put(SB_ERROR, 0, "<I", 65540), "event_len at byte 64 is 65540,"),
    "event_len beyond the data": (put(SB_ERROR, 0, "<I", 60), "end after 56 of 60 bytes"),
    "vers": (put(SB_ERROR, 4, "<B", 2), "vers at byte 68 is 2,"),
    "metadata_len short": (put(SB_ERROR, 6, "<H", 20), "metadata_len at byte 70 is 20,"),
    "metadata_len over event": (put(SB_ERROR, 6, "<H", 60), "metadata_len at byte 70 is 60,"),
    "metadata_len unaligned": (put(SB_ERROR, 6, "<H", 26), "metadata_len at byte 70 is 26,"),
    "info len zero": (put(SB_ERROR, 26, "<H", 0), "info len at byte 90 is 0,"),
    "info len below header": (put(SB_ERROR, 46, "<H", 3), "info len at byte 110 is 3,"),
    "info len unaligned": (put(SB_ERROR, 26, "<H", 21), "info len at byte 90 is 21,"),
    "info len overruns": (put(SB_ERROR, 46, "<H", 16), "info len at byte 110 is 16, more than"),
    "FID short": (event_of(b"\1\0\x10\0" + bytes(12), ERROR), "info len at byte 90 is 16, less"),
    "PIDFD short": (event_of(FID, b"\4\0\4\0", ERROR), "info len at byte 110 is 4, less"),
    "ERROR short": (event_of(FID, b"\5\0\x08\0" + bytes(4)), "info len at byte 110 is 8, less"),
    "handle_bytes overruns": (put(SB_ERROR, 36, "<I", 4), "handle_bytes at byte 100 is 4, more"),
    "handle_bytes absurd": (
        put(SB_ERROR, 36, "<I", 0xFFFFFFF0),
        "handle_bytes at byte 100 is 4294967280, more than 128",
    ),
    "no FID": (event_of(ERROR), r"without a record FID \(1\)"),
    "no ERROR": (event_of(FID), r"without a record ERROR \(5\)"),
    "no records": (event_of(), r"without a record FID \(1\)"),
    "two FID": (event_of(FID, FID, ERROR), "info_type at byte 108 is 1, a second record FID"),
    "two ERROR": (event_of(FID, ERROR, ERROR), "info_type at byte 120 is 5, a second"),
    "two PIDFD": (event_of(FID, PIDFD, PIDFD, ERROR), "info_type at byte 116 is 4, a second"),
    "two PIDFD, overflow": (
        event_of(PIDFD, PIDFD, mask=0x4000),
        "info_type at byte 96 is 4, a second",
    ),
}


def test_a_record_needs_room_for_its_header() -> None:
    """Unaligned lengths are refused before, so no event gets as far."""
    records = info_records(b"\x08\0\x04\0\x08\0", 0, 6, event_at=64, base=88)
    assert next(records).record == InfoRecord(8, 0, b"")
    with pytest.raises(DecodeError, match="info record at byte 92 has no room for a header") as e:
        next(records)
    assert e.value.offset == 64


def finish(decoder: Decoder, stream: Iterator[Event]) -> None:
    assert list(stream) == []
    decoder.close()


@pytest.mark.parametrize("case", REFUSED)
def test_refused_behind_a_good_event(case: str) -> None:
    data, reason = REFUSED[case]
    decoder = Decoder()
    stream = decoder.feed(INODE_ERROR + data)
    assert next(stream) == CAPTURED["inode 14"][1]
    with pytest.raises(DecodeError, match=reason) as caught:
        finish(decoder, stream)
    assert caught.value.offset == len(INODE_ERROR) == 64


def test_a_bad_header_is_refused_before_its_event_is_whole() -> None:
    decoder = Decoder()
    assert list(decoder.feed(put(SB_ERROR, 0, "<I", 65536)[:23])) == []
    assert list(decoder.feed(b"\0")) == []  # 64 KiB may still come
    decoder = Decoder()
    with pytest.raises(DecodeError, match="event_len"):
        list(decoder.feed(put(SB_ERROR, 0, "<I", 0x7FFFFFFC)[:24]))


def test_an_error_is_final_and_offsets_count_from_the_first_byte() -> None:
    decoder = Decoder()
    for _ in range(1000):
        assert len(list(decoder.feed(SB_ERROR))) == 1
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            list(decoder.feed(bytes(24)))
        assert caught.value.offset == 56000
        assert "byte 56000" in caught.value.reason


def test_an_iterator_left_early_loses_nothing() -> None:
    decoder = Decoder()
    first = next(decoder.feed(SB_ERROR + INODE_ERROR))
    rest = list(decoder.feed(SB_ERROR))
    assert [first, *rest] == [
        CAPTURED["superblock, by trigger_fs_error"][1],
        CAPTURED["inode 14"][1],
        CAPTURED["superblock, by trigger_fs_error"][1],
    ]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (FsErrorEvent(EXT4, FileHandle(1, bytes(129)), 5, 1, 1), "129 bytes"),
        (FsErrorEvent(EXT4, None, 5, 1, 1, extra=(InfoRecord(5, 0, bytes(8)),)), "info type 5"),
        (OverflowEvent(extra=(InfoRecord(4, 0, bytes(4)),)), "info type 4"),
        (OtherEvent(1, 1, -1, (InfoRecord(9, 0, b"odd"),)), "multiple of 4"),
        (OtherEvent(1, 1, -1, (InfoRecord(9, 0, bytes(40000)),) * 2), "only 65512 fit"),
        (OtherEvent(0x8000, 1, -1), "mask 0x8000"),
        (OtherEvent(0x4000, 1, -1), "mask 0x4000"),
    ],
)
def test_events_that_no_bytes_can_say(event: Event, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode(event)
