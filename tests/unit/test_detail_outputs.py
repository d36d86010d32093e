"""Details in text and in the schema."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from fserr_bpf.codec.detail import Detail, detail_record, location_record
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Address, FsErrorEvent, InfoRecord, Side
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.schema import from_dict, to_dict
from fserr_bpf.outputs.text import line
from tests.unit.test_outputs import EVENT, EXPECTED, ORIGIN, RAW

RECORDS = (
    detail_record(Detail(1, length=4096, block=120, failaddr=0xFFFFFFFFC08384C4)),
    location_record(b"xfs_dir3_block", 0),
)
SIDE = Side(
    kind="WRITEBACK",
    length=4096,
    stack=(0xFFFFFFFF81000010, 0xFFFFFFFF81000020),
    name="a/b",
    name_state="whole",
    path="/srv/a/b",
    path_state="exact",
    cgroup="/system.slice/db.service",
    cgroup_id=77,
    cgroup_of="inode",
    uuid="0f5d9aee-35e2-4d4c-849e-6640fce171c0",
    label="data",
    mount_points=("/srv", "/mnt"),
)
ADDRESS = Address("5bc0" * 10, "xfs", ".text", 0x84C4)


def with_side(side: Side) -> FsErrorEvent:
    return EVENT._replace(extra=RECORDS, origin=ORIGIN._replace(address=ADDRESS, side=side))


@pytest.mark.parametrize(
    ("side", "end"),
    [
        (SIDE, "WRITEBACK, length 4096, /srv/a/b (exact), cgroup /system.slice/db.service"),
        (
            SIDE._replace(path=""),
            "WRITEBACK, length 4096, a/b (whole), cgroup /system.slice/db.service",
        ),
        (
            Side("READ", pos=512, name_state="whole", cgroup_id=9),
            "READ, pos 512, / (whole), cgroup 9",
        ),
        (Side("METADATA"), "METADATA"),
    ],
)
def test_text_has_what_is_known(side: Side, end: str) -> None:
    assert line(with_side(side)) == f"{line(EVENT)}  {end}"


def test_text_of_a_raw_stream_with_details() -> None:
    shown = line(RAW._replace(extra=RECORDS))
    assert shown == (
        f"{line(RAW)}  kind METADATA length 4096 block 120 failaddr 0xffffffffc08384c4"
        "  in xfs_dir3_block"
    )
    odd = (detail_record(Detail(99, pos=1)), location_record(b"f\x1b", 7), InfoRecord(8, 0, b""))
    assert line(RAW._replace(extra=odd)) == f"{line(RAW)}  kind 99 pos 1  in f\\x1b:7  info 8 -"


def test_hostile_names_are_escaped() -> None:
    hostile = "x\n\x1b[2J\udcff"
    side = SIDE._replace(kind=hostile, path=hostile, cgroup=hostile)
    assert line(with_side(side)).count(r"x\x0a\x1b[2J\xff") == 3
    assert line(with_side(side._replace(path="", name=hostile))).isprintable()


def test_json_has_the_keys_of_the_schema() -> None:
    value = json.loads(FORMATS["json"].encode(with_side(SIDE)))
    assert value["origin"]["address"] == {
        "build_id": "5bc0" * 10,
        "module": "xfs",
        "section": ".text",
        "offset": 0x84C4,
    }
    assert value["origin"]["side"] == SIDE._asdict() | {
        "stack": list(SIDE.stack),
        "mount_points": ["/srv", "/mnt"],
    }
    assert from_dict(value) == with_side(SIDE)


def test_streams_of_before_have_neither() -> None:
    before: dict[str, Any] = copy.deepcopy(EXPECTED)
    del before["origin"]["address"], before["origin"]["side"]
    assert from_dict(before) == EVENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"side": 1}, "event origin side is int, not a map"),
        ({"side": {}}, "event origin side key 'kind' is missing"),
        ({"address": {"build_id": ""}}, "event origin address key 'module' is missing"),
    ],
)
def test_refused(change: dict[str, object], reason: str) -> None:
    value = to_dict(with_side(SIDE))
    value["origin"] |= change
    with pytest.raises(DecodeError, match=reason):
        from_dict(value)


@pytest.mark.parametrize(("key", "wrong"), [("stack", [-1]), ("stack", 5), ("mount_points", [b""])])
def test_wrong_lists_are_refused(key: str, wrong: object) -> None:
    value = to_dict(with_side(SIDE))
    value["origin"]["side"][key] = wrong
    with pytest.raises(DecodeError, match=f"event origin side key '{key}' is"):
        from_dict(value)
