"""Details in text and in the schema."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from fserr_bpf.codec.proposed import DetailedError, detailed_error_record, error_location_record
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import (
    Address,
    Detail,
    FsErrorEvent,
    InfoRecord,
    Origin,
    PathState,
)
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.schema import from_dict, to_dict
from fserr_bpf.outputs.text import line
from fserr_bpf.uapi.proposed import ErrorKind
from tests.unit.test_docs import rows, text_of
from tests.unit.test_outputs import EVENT, EXPECTED, ORIGIN, RAW

RECORDS = (
    detailed_error_record(DetailedError(1, length=4096, block=120, failaddr=0xFFFFFFFFC08384C4)),
    error_location_record(b"xfs_dir3_block", 0),
)
DETAIL = Detail(
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
    kernel_device="dm-3",
)
ADDRESS = Address("5bc0" * 10, "xfs", ".text", 0x84C4)


def with_detail(detail: Detail) -> FsErrorEvent:
    return EVENT._replace(extra=RECORDS, origin=ORIGIN._replace(address=ADDRESS, detail=detail))


@pytest.mark.parametrize(
    ("detail", "end"),
    [
        (DETAIL, "WRITEBACK, length 4096, /srv/a/b (exact), cgroup /system.slice/db.service"),
        (
            DETAIL._replace(path=""),
            "WRITEBACK, length 4096, a/b (whole), cgroup /system.slice/db.service",
        ),
        (
            Detail("READ", pos=512, name_state="whole", cgroup_id=9),
            "READ, pos 512, / (whole), cgroup 9",
        ),
        (Detail("METADATA"), "METADATA"),
    ],
)
def test_text_has_what_is_known(detail: Detail, end: str) -> None:
    assert line(with_detail(detail)) == f"{line(EVENT)}  {end}"


def test_text_of_a_raw_stream_with_details() -> None:
    shown = line(RAW._replace(extra=RECORDS))
    assert shown == (
        f"{line(RAW)}  kind METADATA length 4096 block 120 failaddr 0xffffffffc08384c4"
        "  in xfs_dir3_block"
    )
    odd = (
        detailed_error_record(DetailedError(99, pos=1)),
        error_location_record(b"f\x1b", 7),
        InfoRecord(8, 0, b""),
    )
    assert line(RAW._replace(extra=odd)) == f"{line(RAW)}  kind 99 pos 1  in f\\x1b:7  info 8 -"


def test_hostile_names_are_escaped() -> None:
    hostile = "x\n\x1b[2J\udcff"
    detail = DETAIL._replace(kind=hostile, path=hostile, cgroup=hostile)
    assert line(with_detail(detail)).count(r"x\x0a\x1b[2J\xff") == 3
    assert line(with_detail(detail._replace(path="", name=hostile))).isprintable()


def test_json_has_the_keys_of_the_schema() -> None:
    value = json.loads(FORMATS["json"].encode(with_detail(DETAIL)))
    assert value["origin"]["address"] == {
        "build_id": "5bc0" * 10,
        "module": "xfs",
        "section": ".text",
        "offset": 0x84C4,
    }
    assert value["origin"]["detail"] == DETAIL._asdict() | {
        "stack": list(DETAIL.stack),
        "mount_points": ["/srv", "/mnt"],
        "kernel_device": "dm-3",
    }
    assert from_dict(value) == with_detail(DETAIL)


def test_streams_of_before_have_neither() -> None:
    before: dict[str, Any] = copy.deepcopy(EXPECTED)
    del before["origin"]["address"], before["origin"]["detail"]
    assert from_dict(before) == EVENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"detail": 1}, "event origin detail is int, not a map"),
        ({"detail": {}}, "event origin detail key 'kind' is missing"),
        ({"address": {"build_id": ""}}, "event origin address key 'module' is missing"),
    ],
)
def test_refused(change: dict[str, object], reason: str) -> None:
    value = to_dict(with_detail(DETAIL))
    value["origin"] |= change
    with pytest.raises(DecodeError, match=reason):
        from_dict(value)


@pytest.mark.parametrize(("key", "wrong"), [("stack", [-1]), ("stack", 5), ("mount_points", [b""])])
def test_wrong_lists_are_refused(key: str, wrong: object) -> None:
    value = to_dict(with_detail(DETAIL))
    value["origin"]["detail"][key] = wrong
    with pytest.raises(DecodeError, match=f"event origin detail key '{key}' is"):
        from_dict(value)


def test_schema_names_every_key() -> None:
    """Of origin, detail and address; and detail.md every key of detail and every state."""
    schema = text_of("docs/schema.md")
    keys = {key for row in rows(schema, 3) for key in re.findall(r"`(\w+)`", row[0])}
    assert {*Origin._fields, *Detail._fields} <= keys
    assert set(Address._fields) <= set(re.findall(r"`(\w+)`", schema))
    kinds = next(row for row in rows(schema, 3) if row[0] == "`kind`")
    assert re.findall(r"`(\w+)`", kinds[2]) == [kind.name for kind in ErrorKind]
    detail = text_of("docs/detail.md")
    named = {key for row in rows(detail, 3) for key in re.findall(r"`(\w+)`", row[0])}
    assert {*Detail._fields, "address"} == named
    states = [row[0].strip("`") for row in rows(detail, 2)]
    for state in PathState:
        assert (state.value or "empty") in states
