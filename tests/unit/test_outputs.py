"""Exact text, JSON and msgpack of known events."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator

import msgpack
import pytest

from fserr_bpf.codec.handles import inode_of
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import (
    Event,
    EventId,
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    Lost,
    Origin,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.schema import from_dict, to_dict
from fserr_bpf.outputs.text import line, lost_line, printable
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.inode import InodeId

TIME = 1795379267_123456789  # 2026-11-22 20:27:47 UTC
ORIGIN = Origin(
    time_ns=TIME,
    dev=Dev(254, 0),
    device="vda",
    mount_point="/",
    fstype="ext4",
    ino=14,
    generation=1630451116,
    tid=6499,
    comm="cat",
    source="kprobe:__ext4_error_inode",
    function="ext4_iget",
    line=5021,
    block=77,
    task_start=8211000000,
)
HANDLE = FileHandle(1, struct.pack("<II", 14, 1630451116))
EVENT = FsErrorEvent(Fsid(0x88888888, 0x88888888), HANDLE, 117, 3, 6498, origin=ORIGIN)
SUPERBLOCK = EVENT._replace(handle=None, origin=ORIGIN._replace(ino=0, generation=0))
RAW = EVENT._replace(origin=None)


@pytest.fixture(autouse=True)
def _tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


LINES: dict[str, Event] = {
    "05:27:47.123456 vda    /               EFSCORRUPTED 117 x3   ino 14 gen 1630451116    "
    "cat[6498]      ext4_iget:5021 kprobe:__ext4_error_inode": EVENT,
    "05:27:47.123456 vda    /               EIO -5           x12  superblock               "
    "cat[6498]      ext4_iget kprobe:__ext4_error_inode": SUPERBLOCK._replace(
        error=-5, error_count=12, origin=SUPERBLOCK.origin and SUPERBLOCK.origin._replace(line=0)
    ),
    "05:27:47.123456 vda    /               EIO 5            x1   superblock (ino 14)      "
    "cat[6498]      ext4_iget:5021 kprobe:__ext4_error_inode": EVENT._replace(
        handle=None, error=5, error_count=1
    ),
    "05:27:47.123456 vda    /               EIO 5            x1   ino 14 gen 1630451116    "
    "no task        ext4_iget:5021 kprobe:__ext4_error_inode": EVENT._replace(
        error=5, error_count=1, pid=0, origin=ORIGIN._replace(comm="")
    ),
    "05:27:47.123456 vda    /               EIO 5            x1   ino 14 gen 1630451116    "
    "pid 6498       - kprobe:x": EVENT._replace(
        error=5, error_count=1, origin=ORIGIN._replace(comm="", function="", source="kprobe:x")
    ),
    "05:27:47.123456 loop1  /srv/data       EFSBADCRC 74     x3   ino 14 gen 1630451116    "
    "cat[6498]      0xffffffffc0a01234 kprobe:xfs": EVENT._replace(
        error=74,
        origin=ORIGIN._replace(
            device="loop1",
            mount_point="/srv/data",
            function="",
            line=0,
            failaddr=0xFFFFFFFFC0A01234,
            source="kprobe:xfs",
        ),
    ),
    "--:--:--.------ fsid 88888888:88888888 EFSCORRUPTED 117 x3   ino 14 gen 1630451116    "
    "pid 6498": RAW,
    "--:--:--.------ fsid 88888888:88888888 EFSCORRUPTED 117 x3   superblock               "
    "pid 6498  info 8 61626364": RAW._replace(handle=None, extra=(InfoRecord(8, 0, b"abcd"),)),
    "--:--:--.------ fsid 88888888:88888888 EFSCORRUPTED 117 x3   ino 257 gen 7 root 5     "
    "pid 6498": RAW._replace(handle=FileHandle(0x4D, struct.pack("<QQI", 257, 5, 7))),
    "--:--:--.------ fsid 88888888:88888888 EFSCORRUPTED 117 x3   handle 0x51 0102         "
    "pid 6498": RAW._replace(handle=FileHandle(0x51, b"\1\2")),
    "05:27:47.123456 FAN_Q_OVERFLOW: the queue was full, events are missing here": OverflowEvent(
        time_ns=TIME
    ),
    "--:--:--.------ FAN_Q_OVERFLOW: the queue was full, events are missing here": OverflowEvent(),
    "--:--:--.------ mask 0x100 fd -1 pid 7  info 2 -": OtherEvent(
        0x100, 7, -1, (InfoRecord(2, 0, b""),)
    ),
}


@pytest.mark.parametrize("text", LINES)
def test_text_line(text: str) -> None:
    assert line(LINES[text]) == text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a b\u00e9\u4e2d", "a b\u00e9\u4e2d"),
        ("x\n20:27:47 forged", r"x\x0a20:27:47 forged"),
        ("\x1b[2J\r\t\0\x7f\x9b", r"\x1b[2J\x0d\x09\x00\x7f\x9b"),
        ("\\x0a", r"\x5cx0a"),
        ("\udcff\ud800", r"\xff\ud800"),
        ("\u2028\u202e\u00a0\U000e0041", r"\u2028\u202e\xa0\U000e0041"),
    ],
)
def test_hostile_names_are_escaped_everywhere(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown
    names = {"device", "mount_point", "comm", "source", "function"}
    event = EVENT._replace(origin=ORIGIN._replace(**dict.fromkeys(names, hostile)))  # type: ignore[arg-type]
    assert line(event).count(shown) == 5
    assert FORMATS["text"].encode(event).count(b"\n") == 1


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (117, "EFSCORRUPTED"),
        (-117, "EFSCORRUPTED"),
        (74, "EFSBADCRC"),
        (-5, "EIO"),
        (28, "ENOSPC"),
        (108, "ESHUTDOWN"),
        (0, "0"),
        (-524, "524"),
    ],
)
def test_errno_name(error: int, name: str) -> None:
    assert errno_name(error) == name


@pytest.mark.parametrize(
    ("handle", "inode"),
    [
        (HANDLE, InodeId(14, 1630451116)),
        (FileHandle(0x81, struct.pack("<QI", 2**40, 7)), InodeId(2**40, 7)),
        (FileHandle(0x4D, struct.pack("<QQI", 257, 5, 7)), InodeId(257, 7, 5)),
        (FileHandle(1, bytes(12)), None),
        (FileHandle(0x81, bytes(8)), None),
        (FileHandle(0x02, bytes(8)), None),
    ],
)
def test_inode_of_a_handle(handle: FileHandle, inode: InodeId | None) -> None:
    assert inode_of(handle) == inode


EXPECTED = {
    "v": 3,
    "type": "fs_error",
    "id": None,
    "fsid": "88888888:88888888",
    "handle": {"handle_type": 1, "f_handle": "0e000000acb52e61"},
    "error": 117,
    "errno": "EFSCORRUPTED",
    "error_count": 3,
    "pid": 6498,
    "fd": -1,
    "pidfd": None,
    "extra": [],
    "origin": {
        "time_ns": TIME,
        "dev": [254, 0],
        "device": "vda",
        "mount_point": "/",
        "fstype": "ext4",
        "ino": 14,
        "generation": 1630451116,
        "tid": 6499,
        "comm": "cat",
        "source": "kprobe:__ext4_error_inode",
        "function": "ext4_iget",
        "line": 5021,
        "failaddr": 0,
        "block": 77,
        "task_start": 8211000000,
        "address": None,
        "detail": None,
        "reason": "",
    },
}


def test_json_is_the_documented_schema() -> None:
    data = FORMATS["json"].encode(EVENT)
    assert data.endswith(b"}\n")
    assert json.loads(data) == EXPECTED
    assert list(json.loads(data))[:2] == ["v", "type"]


def test_number_of_a_message_and_a_loss() -> None:
    number = EventId("f7e1", 12_000_000_000, 7)
    numbered = EXPECTED | {"id": {"boot_id": "f7e1", "run": 12_000_000_000, "seq": 7}}
    assert json.loads(FORMATS["json"].encode(EVENT._replace(id=number))) == numbered
    assert from_dict(numbered) == EVENT._replace(id=number)
    lost = Lost(5, 7, 40, TIME, number)
    expected = {"v": 3, "type": "lost", "id": numbered["id"], "first": 5, "last": 7}
    expected |= {"errors": 40, "time_ns": TIME}
    assert to_dict(lost) == expected
    assert from_dict(expected) == lost
    assert lost_line(lost) == "05:27:47.123456 lost: messages 5 to 7, with 40 errors"


def test_earlier_versions_have_no_numbers() -> None:
    without = {key: value for key, value in EXPECTED.items() if key != "id"}
    assert from_dict(without | {"v": 2}) == EVENT


def test_msgpack_is_the_same_with_bin() -> None:
    data = FORMATS["msgpack"].encode(EVENT)
    assert data.startswith(b"\x8d\xa1v\x03\xa4type")
    handle = {"handle_type": 1, "f_handle": bytes.fromhex("0e000000acb52e61")}
    assert msgpack.unpackb(data) == EXPECTED | {"handle": handle}


def test_msgpack_keeps_a_path_that_is_not_utf8() -> None:
    event = EVENT._replace(origin=ORIGIN._replace(mount_point="/\udcff"))
    assert b"\xa2/\xff" in FORMATS["msgpack"].encode(event)


def test_raw_is_the_kernels_bytes() -> None:
    assert FORMATS["raw"].encode(EVENT) == bytes.fromhex(
        "40000000 03001800 00800000 00000000 ffffffff 62190000"
        "01001c00 8888888888888888 08000000 01000000 0e000000 acb52e61"
        "05000c00 75000000 03000000"
    )


def test_later_keys_are_ignored() -> None:
    assert from_dict(EXPECTED | {"new": 1, "errno": "changed"}) == EVENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 4}, "'v' is 4, not 3"),
        ({"v": True}, "'v' is bool"),
        ({"type": "error"}, "'type' is 'error', no type of version 3"),
        ({"id": {"boot_id": "b", "run": 0, "seq": 0}}, "event id key 'seq' is 0, not between 1"),
        ({"id": 7}, "event id is int, not a map"),
        ({"fsid": "88888888-88888888"}, "'fsid' is not xxxxxxxx:xxxxxxxx"),
        ({"fsid": "8:88888888"}, "'fsid' is not"),
        ({"fsid": "-8888888:88888888"}, "'fsid' is not"),
        ({"error": 2**31}, "'error' is 2147483648, not between"),
        ({"error_count": -1}, "'error_count' is -1, not between"),
        ({"pid": "1"}, "'pid' is str, not an integer"),
        ({"handle": 5}, "event handle is int, not a map"),
        ({"handle": {"handle_type": 1, "f_handle": "0"}}, "'f_handle' is not hexadecimal"),
        ({"handle": {"handle_type": 1, "f_handle": "00" * 129}}, "129 bytes"),
        ({"handle": {"handle_type": 1, "f_handle": 3}}, "'f_handle' is int, not bytes"),
        ({"extra": {}}, "'extra' is dict, not a list"),
        ({"extra": [1]}, "extra is int, not a map"),
        ({"extra": [{"info_type": 5, "pad": 0, "data": ""}]}, "info type 5 has fields"),
        ({"origin": {}}, "event origin key 'dev' is missing"),
        ({"origin": {"dev": [1]}}, r"is not \[major, minor\]"),
    ],
)
def test_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as caught:
        from_dict(EXPECTED | change, 99)
    assert caught.value.offset == 99


def test_to_dict_of_the_other_types() -> None:
    record = InfoRecord(8, 0, b"abcd")
    assert to_dict(OverflowEvent(extra=(record,), time_ns=5)) == {
        "v": 3,
        "type": "overflow",
        "id": None,
        "pid": 0,
        "fd": -1,
        "pidfd": None,
        "extra": [{"info_type": 8, "pad": 0, "data": b"abcd"}],
        "time_ns": 5,
    }
    assert to_dict(OtherEvent(256, 7, -1)) == {
        "v": 3,
        "type": "other",
        "id": None,
        "mask": 256,
        "pid": 7,
        "fd": -1,
        "extra": [],
    }
