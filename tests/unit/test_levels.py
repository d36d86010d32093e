"""Where two streams stop to agree, for streams laid out by hand from linux/fanotify.h."""

from __future__ import annotations

import errno
import struct

import pytest

from fserr_bpf_compare.verdict.cells import Difference, Level, Read
from fserr_bpf_compare.verdict.levels import FIELDS, differences, reached

SIZE = 65536
OVERFLOW = struct.pack("<IBBHQii", 24, 3, 0, 24, 0x4000, -1, 0)
CREATE = struct.pack("<IBBHQii", 24, 3, 0, 24, 0x100, -1, 7)
ERROR = 117
VICTIM = struct.pack("<II", 12, 7)
OTHER = struct.pack("<II", 13, 7)
UNKNOWN = struct.pack("<BBHI", 42, 0, 8, 0xABCD)


def fid(ino: bytes | None = None, fsid: int = 0x11, pad: int = 0) -> bytes:
    """A FID record; an ext4 handle, or the empty one of the superblock."""
    handle = b"" if ino is None else ino
    kind = 0xFF if ino is None else 1
    return struct.pack("<BBHIIIi", 1, pad, 20 + len(handle), fsid, 0x22, len(handle), kind) + handle


def error(number: int = ERROR, count: int = 1) -> bytes:
    return struct.pack("<BBHiI", 5, 0, 12, number, count)


def event(*records: bytes, pid: int = 258) -> bytes:
    info = b"".join(records)
    return struct.pack("<IBBHQii", 24 + len(info), 3, 0, 24, 0x8000, -1, pid) + info


def reads(*data: bytes) -> list[Read]:
    return [Read(SIZE, d) if d else Read(SIZE, b"", errno.EAGAIN) for d in data]


PLAIN = event(fid(), error())
HANDLE = "handle 0x1 0c000000 07000000"
FSID = "00000011:00000022"


def test_equal_reads_are_l0_even_if_they_are_no_events() -> None:
    assert reached(reads(PLAIN, b""), reads(PLAIN, b"")) is Level.L0
    assert reached(reads(b"garbage"), reads(b"garbage")) is Level.L0
    assert list(differences(reads(PLAIN), reads(PLAIN), Level.L0)) == []


@pytest.mark.parametrize(
    "other",
    [
        event(error(), fid()),
        event(fid(), error(), UNKNOWN),
        event(UNKNOWN, fid(), UNKNOWN, error()),
        event(fid(pad=1), error()),
    ],
    ids=["reordered", "unknown behind", "unknown between", "padding"],
)
def test_order_and_unknown_records_are_l1(other: bytes) -> None:
    assert reached(reads(PLAIN), reads(other)) is Level.L1
    assert reached(reads(other), reads(PLAIN)) is Level.L1
    assert list(differences(reads(PLAIN), reads(other), Level.L1)) == []
    (difference,) = differences(reads(PLAIN), reads(other), Level.L0)
    assert difference.event == 0
    assert difference.field == ("extra" if UNKNOWN in other else "bytes")


def test_l1_wants_the_same_events_in_the_same_reads() -> None:
    one, other = reads(PLAIN, PLAIN), reads(PLAIN * 2, b"")
    assert reached(one, other) is Level.L2
    assert list(differences(one, other, Level.L1)) == [
        Difference(-1, "read", "read 1 of 65536: 1 events", "read 1 of 65536: 2 events"),
        Difference(-1, "read", "read 2 of 65536: 1 events", "read 2 of 65536: errno 11"),
    ]


def test_a_read_that_failed_on_one_side_only_is_a_difference() -> None:
    one, other = [Read(8, b"", errno.EINVAL)], [Read(8, b"", errno.EAGAIN)]
    assert reached(one, other) is Level.L2
    assert list(differences(one, other, Level.L0)) == [
        Difference(-1, "read", "read 1 of 8: errno 22", "read 1 of 8: errno 11")
    ]


@pytest.mark.parametrize(
    ("other", "field", "left", "right"),
    [
        (event(fid(), error(), pid=259), "pid", "258", "259"),
        (event(fid(), error(-5)), "error", "EFSCORRUPTED 117", "EIO -5"),
        (event(fid(), error(count=2)), "error_count", "1", "2"),
        (event(fid(VICTIM), error()), "handle", "superblock", HANDLE),
        (event(fid(fsid=1), error()), "fsid", FSID, "00000001:00000022"),
        (OVERFLOW, "event", f"EFSCORRUPTED 117 on {FSID}, superblock, x1, pid 258",
         "FAN_Q_OVERFLOW"),
        (b"", "event", f"EFSCORRUPTED 117 on {FSID}, superblock, x1, pid 258", "nothing"),
    ],
)  # fmt: skip
def test_each_field_is_named_with_both_values(
    other: bytes, field: str, left: str, right: str
) -> None:
    found = list(differences(reads(CREATE + PLAIN), reads(CREATE + other), Level.L0))
    assert found == [Difference(1, field, left, right)]
    assert field in FIELDS


def test_a_missing_event_does_not_shift_those_behind_it() -> None:
    first, last = event(fid(VICTIM), error()), event(fid(OTHER), error())
    one, other = reads(first + PLAIN + last), reads(first + last)
    (difference,) = differences(one, other, Level.L0)
    assert difference[:2] == (1, "event")
    assert list(differences(other, one, Level.L0)) == [
        Difference(1, "event", difference.emulated, difference.real)
    ]


def test_other_events_differ_by_mask() -> None:
    modify = CREATE.replace(struct.pack("<Q", 0x100), struct.pack("<Q", 2))
    assert [*differences(reads(CREATE), reads(modify), Level.L1)] == [
        Difference(0, "mask", "256", "2")
    ]
    assert [*differences(reads(CREATE), reads(modify), Level.L2)] == [
        Difference(-1, "event", "event with mask 0x100", "nothing"),
        Difference(-1, "event", "nothing", "event with mask 0x2"),
    ]


def test_what_cannot_be_decoded_is_different_and_says_where() -> None:
    one, other = reads(PLAIN, PLAIN + b"\xab\xcd"), reads(PLAIN, PLAIN)
    assert reached(one, other) is Level.DIFFERENT
    reason = "offset 56: the data end after 2 of at least 24 bytes of an event (read 2)"
    for level in (Level.L0, Level.L2):
        assert list(differences(one, other, level)) == [
            Difference(-1, "stream", reason, "whole events")
        ]


EIO_A = fid(VICTIM), error(5)
EIO_B = fid(OTHER), error(5)
NOSPC_A = fid(VICTIM), error(28)


def merged(kind: tuple[bytes, bytes], count: int, pid: int = 9) -> bytes:
    number = struct.unpack_from("<i", kind[1], 4)[0]
    return event(kind[0], error(number, count), pid=pid)


# Three errors: EIO of one inode, EIO of another, ENOSPC of the first.
WHOLE = merged(EIO_A, 3)
SINGLE = merged(EIO_A, 1) + merged(EIO_B, 1) + merged(NOSPC_A, 1)
L2_EQUAL = {
    "all merged": WHOLE,
    "none merged": SINGLE,
    "two merged": merged(EIO_A, 2) + merged(NOSPC_A, 1),
    "other boundary": merged(EIO_A, 1) + merged(EIO_B, 2),
    "another pid": merged(EIO_A, 2, pid=10) + merged(NOSPC_A, 1, pid=11),
    "another order": merged(NOSPC_A, 2) + merged(EIO_B, 1),
}


@pytest.mark.parametrize("one", L2_EQUAL)
def test_where_merging_stopped_does_not_matter_at_l2(one: str) -> None:
    # each of them came from the same three errors, so it agrees with all merged and none merged
    for other in (WHOLE, SINGLE):
        for sides in ((L2_EQUAL[one], other), (other, L2_EQUAL[one])):
            left, right = map(reads, sides)
            assert reached(left, right) <= Level.L2
            assert list(differences(left, right, Level.L2)) == []


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        (WHOLE, merged(EIO_A, 2), {"error_count"}),
        (WHOLE, merged(EIO_A, 4), {"error_count"}),
        (WHOLE, b"", {"error_count"}),
        (WHOLE, merged((fid(VICTIM, fsid=1), error(5)), 3), {"error_count"}),
        (merged(EIO_A, 1), merged(EIO_B, 1), {"error"}),
        (merged(EIO_A, 1), merged((EIO_A[0], error(-5)), 1), {"error"}),
        (SINGLE, merged(EIO_A, 1) + merged(EIO_B, 1) + merged((fid(), error(28)), 1), {"error"}),
        # of three errors no more than three kinds can have been
        (SINGLE, merged((fid(), error(5)), 3), {"error"}),
        (WHOLE + OVERFLOW, WHOLE, {"event"}),
    ],
    ids=[
        *("lost", "invented", "all lost", "other file system", "other inode", "other sign"),
        *("one of three", "none of three", "overflow"),
    ],
)
def test_a_lost_invented_or_changed_error_is_found_at_l2(
    one: bytes, other: bytes, fields: set[str]
) -> None:
    for sides in ((one, other), (other, one)):
        left, right = map(reads, sides)
        assert reached(left, right) > Level.L2
        assert {d.field for d in differences(left, right, Level.L2)} == fields


def test_l2_says_which_kinds_cannot_be_the_same_errors() -> None:
    one, other = reads(merged(EIO_A, 1)), reads(merged(EIO_B, 1))
    victim = f"EIO 5 on {FSID}, {HANDLE}"
    sibling = f"EIO 5 on {FSID}, handle 0x1 0d000000 07000000"
    assert list(differences(one, other, Level.L2)) == [
        Difference(-1, "error", f"1 events of {victim}", f"0 events of {victim}"),
        Difference(-1, "error", f"0 events of {sibling}", f"1 events of {sibling}"),
    ]


def test_how_often_the_queue_was_full_is_left_to_the_reader() -> None:
    one, other = reads(WHOLE + OVERFLOW), reads(OVERFLOW, WHOLE, OVERFLOW)
    assert reached(one, other) is Level.L2


def test_l3_is_the_set_of_file_systems_and_errors() -> None:
    one, other = reads(WHOLE), reads(merged(EIO_B, 1))
    assert reached(one, other) is Level.L3
    assert list(differences(one, other, Level.L3)) == []
    assert reached(one, reads(SINGLE * 2)) is Level.DIFFERENT
    assert list(differences(one, reads(SINGLE * 2), Level.L3)) == [
        Difference(-1, "error", "nothing", f"ENOSPC 28 on {FSID}")
    ]
