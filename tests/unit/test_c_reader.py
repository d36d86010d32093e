"""Our decoder, a reader in C and hand-made meanings of real bytes: all three must agree."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fserr_bpf.codec.fanotify import Decoder, encode
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Event, FileHandle, FsErrorEvent, Fsid, OverflowEvent
from tests.c_reader import COMPILER, compile_reader, line_of, read_in_c
from tests.property import strategies

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
CAPTURES: list[dict[str, Any]] = tomllib.loads((DATA / "meaning.toml").read_text())["capture"]

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    return compile_reader(tmp_path_factory.mktemp("reader"))


def decoded(stream: bytes) -> list[Event]:
    decoder = Decoder()
    events = list(decoder.feed(stream))
    decoder.close()
    return events


def fsid_of(capture: dict[str, Any]) -> Fsid:
    """``ext4_statfs()`` and ``xfs_fs_statfs()``: of the uuid and of the device."""
    if "uuid" in capture:
        low, high = struct.unpack("<QQ", UUID(capture["uuid"]).bytes)
        return Fsid((low ^ high) & 0xFFFFFFFF, (low ^ high) >> 32)
    major, minor = capture["dev"]
    return Fsid(minor & 0xFF | major << 8 | (minor & ~0xFF) << 12, 0)


def meant(capture: dict[str, Any], event: dict[str, Any]) -> Event:
    """One event of ``meaning.toml``."""
    if event.get("overflow"):
        return OverflowEvent(event["pid"])
    handle = None
    if "ino" in event:
        kind, layout = (1, "<II") if "uuid" in capture else (0x81, "<QI")
        handle = FileHandle(kind, struct.pack(layout, event["ino"], event["generation"]))
    return FsErrorEvent(
        fsid_of(capture),
        handle,
        event["error"],
        event["error_count"],
        event["pid"],
        pidfd=event.get("pidfd"),
    )


def test_every_capture_has_a_meaning() -> None:
    files = [capture["file"] for capture in CAPTURES]
    assert sorted(files) == sorted(path.name for path in DATA.glob("*.bin"))
    assert len(files) >= 10


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: str(capture["file"]))
def test_captures_mean_what_was_worked_out_by_hand(reader: Path, capture: dict[str, Any]) -> None:
    stream = (DATA / capture["file"]).read_bytes()
    assert str(fsid_of(capture)) == capture["fsid"]
    events = [meant(capture, event) for event in capture["event"]]
    assert decoded(stream) == events
    assert read_in_c(reader, stream) == (0, [line_of(event) for event in events], "")
    assert b"".join(map(encode, events)) == stream


@given(st.lists(strategies.events, max_size=20))
def test_generated_streams_read_the_same_in_c(reader: Path, events: list[Event]) -> None:
    stream = b"".join(map(encode, events))
    assert read_in_c(reader, stream) == (0, [line_of(event) for event in events], "")


@given(strategies.fs_error_events, st.data())
def test_records_in_any_order_read_the_same_in_c(
    reader: Path, event: FsErrorEvent, draw: st.DataObject
) -> None:
    data = encode(event)
    records, at = [], 24
    while at < len(data):
        length = struct.unpack_from("<H", data, at + 2)[0]
        records.append(data[at : at + length])
        at += length
    stream = data[:24] + b"".join(draw.draw(st.permutations(records)))
    assert read_in_c(reader, stream) == (0, [line_of(e) for e in decoded(stream)], "")


PLAIN = (DATA / "6.18-ext4-htree.bin").read_bytes()


def changed(offset: int, layout: str, value: int) -> bytes:
    data = bytearray(PLAIN)
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (PLAIN[:20], "the stream ends within an event"),
        (PLAIN[:-4], "the stream ends within an event"),
        (changed(4, "<B", 2), "another version of the metadata"),
        (changed(6, "<H", 20), "a wrong metadata_len"),
        (changed(0, "<I", 20), "a wrong metadata_len"),
        (changed(26, "<H", 44), "a record of a wrong length"),
        (changed(26, "<H", 2), "a record of a wrong length"),
        (changed(26, "<H", 16), "no room for a file handle"),
        (changed(36, "<I", 9), "a file handle that is too long"),
        (changed(52, "<B", 1), "a record twice"),
        (changed(52, "<B", 9), "an error without its records"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_refuse_the_same(reader: Path, stream: bytes, why: str) -> None:
    status, lines, said = read_in_c(reader, PLAIN + stream)
    assert (status, len(lines)) == (1, 1)
    assert said.endswith(f": {why}\n")
    with pytest.raises(DecodeError):
        decoded(PLAIN + stream)
