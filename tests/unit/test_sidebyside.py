"""Streams beside each other: what people see, for streams laid out by hand."""

from __future__ import annotations

import struct

from fserr_bpf_compare.report.decoded import events
from fserr_bpf_compare.report.sidebyside import side_by_side

# linux/fanotify.h by hand: metadata, FID record of the superblock form, ERROR record
EVENT = (
    struct.pack("<IBBHQii", 56, 3, 0, 24, 0x8000, -1, 258)
    + struct.pack("<BBHIIIi", 1, 0, 20, 0x11, 0x22, 0, 0xFF)
    + struct.pack("<BBHiI", 5, 0, 12, 117, 1)
)
WORDS = "EFSCORRUPTED 117 x1, superblock, pid 258, 56 bytes"
EQUAL = """\
  metadata  38000000 03001800 00800000 00000000  |  38000000 03001800 00800000 00000000
            ffffffff 02010000                    |  ffffffff 02010000
  FID       01001400 11000000 22000000 00000000  |  01001400 11000000 22000000 00000000
            ff000000                             |  ff000000
"""
SAME_ERROR = """\
  ERROR     05000c00 75000000 01000000           |  05000c00 75000000 01000000
"""
OTHER_ERROR = """\
  ERROR     05000c00 75000000 01000000           |  05000c00 74000000 01020000
                     ^^         ^^               |           ^^         ^^
"""


def show(left: bytes, right: bytes, *, colour: bool = False) -> str:
    heading, *lines = side_by_side(
        events(left), events(right), ("ours", "the kernel's"), colour=colour
    )
    assert heading == " " * 12 + f"{'ours':<37}|  the kernel's"
    assert max(map(len, lines)) <= 100
    return "".join(f"{line}\n" for line in lines)


def test_equal_streams_have_no_marks() -> None:
    assert show(EVENT * 2, EVENT * 2) == "".join(
        f"event {number}: {WORDS}\n{EQUAL}{SAME_ERROR}" for number in (1, 2)
    )


def test_each_differing_byte_is_marked_on_both_sides() -> None:
    other = EVENT[:-8] + struct.pack("<iI", 116, 0x0201)
    words = "ESTALE 116 x513, superblock, pid 258, 56 bytes"
    titles = f"event 1: {WORDS}\n     beside: {words}\n"
    assert show(EVENT, other) == titles + EQUAL + OTHER_ERROR
    *unmarked, marks = OTHER_ERROR.splitlines()
    coloured = "\n".join([*unmarked, f"\x1b[31m{marks}\x1b[0m\n"])
    assert show(EVENT, other, colour=True) == titles + EQUAL + coloured


def test_missing_event_is_nothing_beside_bytes_that_are_all_marked() -> None:
    lines = show(b"", EVENT).splitlines()
    assert lines[:2] == ["event 1: nothing", f"     beside: {WORDS}"]
    assert sum(line.count("^^") for line in lines) == 2 * len(EVENT)


def test_what_is_no_event_is_shown_as_it_is() -> None:
    lines = show(EVENT + b"\xab\xcd\xef", EVENT).splitlines()
    assert lines[6].startswith("event 2: not an event (offset 56: the data end after 3 of")
    assert lines[7] == "     beside: nothing"
    assert lines[8].split() == ["bytes", "abcdef", "|"]
    assert lines[9].split() == ["^^^^^^", "|", "^^^^^^"]
    assert len(lines) == 10
