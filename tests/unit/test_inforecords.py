"""The proposal's records of a group that asked for them, and what they keep from merging."""

from __future__ import annotations

import pytest

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.codec.proposed import (
    DetailedError,
    ErrorLocation,
    read_detailed_error,
    read_error_location,
)
from fserr_bpf.group.inforecords import apart, records
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import Probe
from tests.ring_values import record

PLAIN, DETAIL, LOCATION = GroupFlags(), GroupFlags(detail=True), GroupFlags(location=True)
BOTH = GroupFlags(detail=True, location=True)
SEEN = record(
    Probe.EXT4_STD_ERROR,
    function=b"ext4_journal_check_start",
    line=83,
    length=512,
    block=24,
    failaddr=0xFFFFFFFF81234567,
)
EROFS = 30


def test_nothing_beyond_upstream_keeps_errors_apart_unless_it_is_shown() -> None:
    assert apart(SEEN, EROFS, PLAIN) is None


@pytest.mark.parametrize("flags", [DETAIL, LOCATION, BOTH])
def test_kinds_and_addresses_merge_apart(flags: GroupFlags) -> None:
    assert apart(SEEN, EROFS, flags) == (ErrorKind.JOURNAL, 0xFFFFFFFF81234567)
    assert apart(SEEN, 108, flags) == (ErrorKind.SHUTDOWN, 0xFFFFFFFF81234567)
    assert apart(SEEN._replace(failaddr=0), EROFS, flags) == (ErrorKind.JOURNAL, 0)


def test_records_are_those_that_were_asked_for_in_the_kernels_order() -> None:
    detailed = DetailedError(ErrorKind.JOURNAL, 0, 512, 24, 0xFFFFFFFF81234567)
    located = ErrorLocation("ext4_journal_check_start", 83)
    for flags, expected in (
        (PLAIN, []),
        (DETAIL, [detailed]),
        (LOCATION, [located]),
        (BOTH, [detailed, located]),
    ):
        made = list(records(SEEN, EROFS, flags, True))
        assert [read_detailed_error(r) or read_error_location(r) for r in made] == expected


def test_an_address_is_shown_to_who_may_see_it() -> None:
    (made,) = records(SEEN, EROFS, DETAIL, False)
    assert read_detailed_error(made) == DetailedError(ErrorKind.JOURNAL, 0, 512, 24, 0)


def test_no_location_where_the_file_system_names_none() -> None:
    for seen in (SEEN._replace(function=bytes(48)), record(Probe.WRITEBACK, function=b"f")):
        assert list(records(seen, EROFS, LOCATION, True)) == []


def test_a_function_name_that_fills_its_field_is_whole() -> None:
    (made,) = records(SEEN._replace(function=b"f" * 48), EROFS, LOCATION, True)
    assert read_error_location(made) == ErrorLocation("f" * 47, 83)


def test_what_lies_behind_the_end_of_the_name_is_no_part_of_it() -> None:
    dirty = b"ext4_iget\0\0xyz\0".ljust(48, b"\0")
    (made,) = records(SEEN._replace(function=dirty), EROFS, LOCATION, True)
    assert made.data == bytes.fromhex("53000000 657874345f696765 74000000")
