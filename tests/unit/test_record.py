"""Records of the ring."""

from __future__ import annotations

import struct

import pytest

from fserr_bpf.codec.record import decode_record
from fserr_bpf.errors import DecodeError
from fserr_bpf.uapi.record import Flag, Probe, Record

# offsets and values by hand from bpf/fserr.h
DATA = (
    struct.pack("<BBHIQ", 1, 2, 176, 1, 123456789)
    + struct.pack("<IIIi", 254 << 20 | 3, 0xEF53, 0x10000, -5)
    + struct.pack("<QII", 14, 0x612EB5AC, 5021)
    + struct.pack("<QQQQ", 5, 77, 4096, 0xFFFFFFFFC0A01234)
    + struct.pack("<IIQ", 6498, 6499, 42)
    + struct.pack("<IIII", 8, 9, 4026532201, 1)
    + b"cat".ljust(16, b"\0")
    + b"ext4_iget".ljust(48, b"\0")
)
RECORD = Record(
    version=1,
    probe=Probe.EXT4_ERROR_INODE,
    size=176,
    flags=Flag.HAS_INODE,
    time_ns=123456789,
    dev=254 << 20 | 3,
    magic=0xEF53,
    sb_flags=0x10000,
    error=-5,
    ino=14,
    generation=0x612EB5AC,
    line=5021,
    subvolume=5,
    block=77,
    length=4096,
    failaddr=0xFFFFFFFFC0A01234,
    tgid=6498,
    tid=6499,
    task_start=42,
    own_tgid=8,
    own_tid=9,
    pid_namespace=4026532201,
    pid_level=1,
    comm=b"cat".ljust(16, b"\0"),
    function=b"ext4_iget".ljust(48, b"\0"),
)


def test_decoded() -> None:
    assert len(DATA) == 176
    assert decode_record(DATA) == RECORD


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes, not 176"),
        (DATA[:-1], "175 bytes, not 176"),
        (DATA + b"\0", "177 bytes, not 176"),
        (b"\2" + DATA[1:], "version at byte 0 is 2, not 1"),
        (DATA[:2] + b"\x99\0" + DATA[4:], "size at byte 2 is 153, not 176"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as caught:
        decode_record(data)
    assert caught.value.offset == 0
