"""Entries of the ring: what may follow a record, laid out by hand and by the compiled header."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fserr_bpf.codec.entry import Entry, decode_entry
from fserr_bpf.errors import DecodeError
from fserr_bpf.uapi.entry import (
    ANCESTOR,
    CGROUPS,
    DETAIL,
    DETAIL_SIZE,
    FSERR_ALIASES_MAX,
    FSERR_DEPTH_MAX,
    NAMES,
    PLACE,
    PLACE_SIZE,
    STACK,
    AliasFlag,
    DetailRecord,
    NameFlag,
    PlaceFlag,
    PlaceRecord,
)
from fserr_bpf.uapi.inode import InodeId
from fserr_bpf.uapi.record import RECORD
from tests.unit.test_docs import rows, text_of
from tests.unit.test_record import DATA
from tests.unit.test_record import RECORD as RECORD_SEEN
from tests.unit.test_uapi_layout import compile_and_run

WORDS = (b"victim", b"group7", b"")
DETAIL_BYTES = (
    STACK.pack(*range(10, 18), 0, 0)
    + DETAIL.pack(77, 78, 0, NameFlag.WHOLE)
    + NAMES.pack(*WORDS, *[b""] * 5)
)
PLACE_BYTES = (
    PLACE.pack(1, 2, 0o100644, 3, 1, 0)
    + CGROUPS.pack(9, 8, 1, *[0] * 9)
    + CGROUPS.pack(7, 1, *[0] * 10)
    + ANCESTOR.pack(12, 34, 0)
    + ANCESTOR.pack(2, 0, 0)
    + bytes((FSERR_DEPTH_MAX - 2) * ANCESTOR.size)
    + ANCESTOR.pack(99, 5, 256)
    + bytes((2 * FSERR_DEPTH_MAX - 1) * ANCESTOR.size)
)
INSIDE = DetailRecord(
    stack=(*range(10, 18), 0, 0),
    task_cgroup=77,
    inode_cgroup=78,
    type=0,
    name_flags=int(NameFlag.WHOLE),
    names=tuple(word.ljust(64, b"\0") for word in (*WORDS, *[b""] * 5)),
)


def test_an_entry_is_a_record_and_perhaps_a_detail() -> None:
    assert decode_entry(DATA) == Entry(RECORD_SEEN)
    assert decode_entry(DATA + DETAIL_BYTES) == Entry(RECORD_SEEN, INSIDE)
    with pytest.raises(DecodeError, match="offset 176: 615 bytes behind the record, not one of"):
        decode_entry(DATA + DETAIL_BYTES[:-1])


def test_a_place_comes_last() -> None:
    expected = PlaceRecord(
        flags=1,
        nlink=2,
        mode=0o100644,
        alias_flags=(3, 1, 0),
        task_cgroups=(9, 8, 1),
        inode_cgroups=(7, 1),
        ancestors=((InodeId(12, 34, 0), InodeId(2, 0, 0)), (InodeId(99, 5, 256),), ()),
    )
    assert len(PLACE_BYTES) == PLACE_SIZE
    assert decode_entry(DATA + PLACE_BYTES) == Entry(RECORD_SEEN, place=expected)
    assert decode_entry(DATA + DETAIL_BYTES + PLACE_BYTES) == Entry(RECORD_SEEN, INSIDE, expected)


def layout(struct: str, fields: tuple[str, ...]) -> list[str]:
    """C statements that print offset and size of each field."""
    return [
        f'printf("%zu %zu\\n", offsetof(struct {struct}, {name}), '
        f"sizeof ((struct {struct} *)0)->{name});"
        for name in fields
    ]


def described(kind: str, sizes: list[int]) -> list[list[str]]:
    """The same of ``sizes``, held against the table of the document."""
    expected = [[str(sum(sizes[:n])), str(size)] for n, size in enumerate(sizes)]
    text = text_of("docs/record-format.md").partition(f"| {kind} field |")[2].partition("\n\n")[0]
    assert [[r[0], r[3]] for r in rows(text, 5)] == expected
    return expected


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
def test_layouts_are_those_of_bpf_entry_h(tmp_path: Path) -> None:
    flags = {"NAME": NameFlag, "PLACE": PlaceFlag, "ALIAS": AliasFlag}
    named = [(f"FSERR_{kind}_{flag.name}", flag) for kind, of in flags.items() for flag in of]
    statements = [
        *layout("fserr_detail", DetailRecord._fields),
        *layout("fserr_place", PlaceRecord._fields),
        *layout("fserr_ancestor", InodeId._fields),
        'printf("%zu %zu\\n", sizeof(struct fserr_detail), sizeof(struct fserr_place));',
        'printf("%zu %zu\\n", sizeof(struct fserr_ancestor), sizeof(struct fserr_entry));',
        f'printf("{"%u " * len(named)}\\n", {", ".join(name for name, _ in named)});',
    ]
    includes = ["<linux/types.h>", '"fserr.h"', '"entry.h"']
    lines = compile_and_run(tmp_path, includes, statements)
    detail = [STACK.size, 8, 8, 4, 4, NAMES.size]
    chains = FSERR_ALIASES_MAX * FSERR_DEPTH_MAX * ANCESTOR.size
    place = [4, 4, 4, 4 * FSERR_ALIASES_MAX, CGROUPS.size, CGROUPS.size, chains]
    assert lines == [
        *described("detail", detail),
        *described("place", place),
        *[["0", "8"], ["8", "4"], ["12", "4"]],
        [str(DETAIL_SIZE), str(PLACE_SIZE)],
        [str(ANCESTOR.size), str(RECORD.size)],
        [str(int(flag)) for _, flag in named],
    ]
