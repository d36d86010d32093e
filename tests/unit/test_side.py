"""The side record: its layout, what is made of it, and what the documents say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fserr_bpf.codec.side import place_in, record_in, side_in
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Address, Origin, PathState, Side
from fserr_bpf.origin import side_of
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import RECORD, Flag, Probe, Record
from fserr_bpf.uapi.side import (
    ANCESTOR,
    CGROUPS,
    FSERR_ALIASES_MAX,
    FSERR_DEPTH_MAX,
    NAMES,
    PLACE,
    PLACE_SIZE,
    SIDE,
    SIDE_SIZE,
    STACK,
    AliasFlag,
    Ancestor,
    NameFlag,
    PlaceFlag,
    PlaceRecord,
    SideRecord,
)
from tests.unit.test_docs import rows, text_of
from tests.unit.test_record import DATA
from tests.unit.test_uapi_layout import compile_and_run

WORDS = (b"victim", b"group7", b"")
SIDE_BYTES = (
    STACK.pack(*range(10, 18), 0, 0)
    + SIDE.pack(77, 78, 0, NameFlag.WHOLE)
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
INSIDE = SideRecord(
    stack=(*range(10, 18), 0, 0),
    task_cgroup=77,
    inode_cgroup=78,
    type=0,
    name_flags=int(NameFlag.WHOLE),
    names=tuple(word.ljust(64, b"\0") for word in (*WORDS, *[b""] * 5)),
)


def record(probe: Probe, **changes: int | bytes) -> Record:
    nothing = record_in(DATA)._replace(flags=0, function=b"\0" * 48)
    return nothing._replace(probe=int(probe), **changes)  # type: ignore[arg-type]


WRITEBACK = record(Probe.WRITEBACK)


def made(
    record: Record, side: SideRecord | None = INSIDE, error: int = 5, *, owners: bool = True
) -> Side:
    return side_of(record, side, error, "kprobe:f", owners=owners)


def test_an_entry_is_a_record_and_perhaps_a_side_record() -> None:
    assert record_in(DATA) == record_in(DATA + SIDE_BYTES)
    assert side_in(DATA) is None
    assert side_in(DATA + SIDE_BYTES) == INSIDE
    with pytest.raises(DecodeError, match="offset 176: 615 bytes behind the record, not one of"):
        side_in(DATA + SIDE_BYTES[:-1])


def test_a_place_comes_last() -> None:
    expected = PlaceRecord(
        flags=1,
        nlink=2,
        mode=0o100644,
        alias_flags=(3, 1, 0),
        task_cgroups=(9, 8, 1),
        inode_cgroups=(7, 1),
        ancestors=((Ancestor(12, 34, 0), Ancestor(2, 0, 0)), (Ancestor(99, 5, 256),), ()),
    )
    assert len(PLACE_BYTES) == PLACE_SIZE
    assert place_in(DATA) is place_in(DATA + SIDE_BYTES) is None
    assert place_in(DATA + PLACE_BYTES) == expected
    assert place_in(DATA + SIDE_BYTES + PLACE_BYTES) == expected
    assert side_in(DATA + SIDE_BYTES + PLACE_BYTES) == INSIDE
    assert side_in(DATA + PLACE_BYTES) is None


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
def test_layouts_are_those_of_bpf_side_h(tmp_path: Path) -> None:
    flags = {"NAME": NameFlag, "PLACE": PlaceFlag, "ALIAS": AliasFlag}
    named = [(f"FSERR_{kind}_{flag.name}", flag) for kind, of in flags.items() for flag in of]
    statements = [
        *layout("fserr_side", SideRecord._fields),
        *layout("fserr_place", PlaceRecord._fields),
        *layout("fserr_ancestor", Ancestor._fields),
        'printf("%zu %zu\\n", sizeof(struct fserr_side), sizeof(struct fserr_place));',
        'printf("%zu %zu\\n", sizeof(struct fserr_ancestor), sizeof(struct fserr_entry));',
        f'printf("{"%u " * len(named)}\\n", {", ".join(name for name, _ in named)});',
    ]
    includes = ["<linux/types.h>", '"fserr.h"', '"side.h"']
    lines = compile_and_run(tmp_path, includes, statements)
    side = [STACK.size, 8, 8, 4, 4, NAMES.size]
    chains = FSERR_ALIASES_MAX * FSERR_DEPTH_MAX * ANCESTOR.size
    place = [4, 4, 4, 4 * FSERR_ALIASES_MAX, CGROUPS.size, CGROUPS.size, chains]
    assert lines == [
        *described("side", side),
        *described("place", place),
        *[["0", "8"], ["8", "4"], ["12", "4"]],
        [str(SIDE_SIZE), str(PLACE_SIZE)],
        [str(ANCESTOR.size), str(RECORD.size)],
        [str(int(flag)) for _, flag in named],
    ]


def test_a_writeback_belongs_to_who_wrote() -> None:
    side = made(WRITEBACK)
    assert (side.kind, side.cgroup_id, side.cgroup_of) == ("WRITEBACK", 78, "inode")
    assert side.stack == tuple(range(11, 18))
    assert (side.name, side.name_state) == ("group7/victim", "whole")
    for other in (
        made(WRITEBACK, owners=False),
        made(WRITEBACK, INSIDE._replace(inode_cgroup=0)),
        made(record(Probe.EXT4_ERROR_INODE)),
    ):
        assert (other.cgroup_id, other.cgroup_of) == (77, "task")


def test_a_soft_interrupt_has_no_task() -> None:
    in_interrupt = record(Probe.WRITEBACK, flags=int(Flag.NO_TASK))
    assert made(in_interrupt).cgroup_of == "inode"
    side = made(in_interrupt, owners=False)
    assert (side.cgroup_id, side.cgroup_of) == (0, "")


def test_without_side_records_the_record_still_tells() -> None:
    assert made(record(Probe.XFS_BUF_TRACE, length=512), None) == Side("METADATA", length=512)


@pytest.mark.parametrize(
    ("type_", "kind"),
    [(1, "READ"), (2, "WRITEBACK"), (3, "DIRECT_READ"), (4, "DIRECT_WRITE"), (5, "DATA_LOST")],
)
def test_linux_7_says_the_kind_itself(type_: int, kind: str) -> None:
    seen = record(Probe.FSERROR, block=4096, length=100)
    side = made(seen, INSIDE._replace(type=type_))
    assert (side.kind, side.pos, side.length) == (kind, 4096, 100)
    assert made(seen, INSIDE._replace(type=type_), 108).kind == "SHUTDOWN"


def test_a_type_of_tomorrow_is_metadata() -> None:
    assert made(record(Probe.FSERROR), INSIDE._replace(type=99)).kind == "METADATA"


@pytest.mark.parametrize(
    ("names", "flags", "expected"),
    [
        ((), NameFlag.WHOLE, ("", "whole")),
        ((), 0, ("", "")),
        ((b"f",), 0, ("f", "part")),
        ((b"f", b"d"), NameFlag.WHOLE | NameFlag.DELETED, ("d/f", "deleted")),
        ((b"f", b"d"), NameFlag.DELETED, ("d/f", "part")),
        ((b"f", b"x" * 63), NameFlag.WHOLE, ("f", "part")),
        ((b"x" * 63, b"d"), NameFlag.WHOLE, ("", "")),
        ((b"\xff\n\x1b[31m",), NameFlag.WHOLE, ("\udcff\n\x1b[31m", "whole")),
    ],
)
def test_names(names: tuple[bytes, ...], flags: int, expected: tuple[str, str]) -> None:
    padded = tuple(name.ljust(64, b"\0") for name in (*names, *[b""] * (8 - len(names))))
    side = made(WRITEBACK, INSIDE._replace(names=padded, name_flags=flags))
    assert (side.name, side.name_state) == expected


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (record(Probe.XFS_INODE_VERIFIER), PathState.NOT_ASKED),
        (record(Probe.XFS_INODE_SICK), PathState.NOT_ASKED),
        (record(Probe.EXT4_ERROR_INODE, function=b"__ext4_iget"), PathState.NOT_ASKED),
        (record(Probe.EXT4_ERROR_INODE, function=b"__ext4_get_inode_loc"), PathState.NOT_ASKED),
        (record(Probe.EXT4_ERROR_INODE, function=b"ext4_find_extent"), PathState.NONE),
        (WRITEBACK, PathState.NONE),
    ],
)
def test_a_bad_inode_is_left_alone(seen: Record, state: PathState) -> None:
    assert made(seen).path_state == state


def test_metadata_errors_of_linux_7_may_be_of_an_inode_nobody_could_read() -> None:
    seen = record(Probe.FSERROR)
    nameless = INSIDE._replace(type=6, name_flags=0, names=(b"\0" * 64,) * 8)
    assert made(seen, nameless).path_state == PathState.NOT_ASKED
    assert made(seen, nameless._replace(type=1)).path_state == PathState.NONE
    assert made(seen, INSIDE._replace(type=6)).path_state == PathState.NONE


def test_schema_names_every_key() -> None:
    """Of origin, side and address; and detail.md every key of side and every state."""
    schema = text_of("docs/schema.md")
    keys = {key for row in rows(schema, 3) for key in re.findall(r"`(\w+)`", row[0])}
    assert {*Origin._fields, *Side._fields} <= keys
    assert set(Address._fields) <= set(re.findall(r"`(\w+)`", schema))
    kinds = next(row for row in rows(schema, 3) if row[0] == "`kind`")
    assert re.findall(r"`(\w+)`", kinds[2]) == [kind.name for kind in ErrorKind]
    detail = text_of("docs/detail.md")
    named = {key for row in rows(detail, 3) for key in re.findall(r"`(\w+)`", row[0])}
    assert {*Side._fields, "address"} == named
    states = [row[0].strip("`") for row in rows(detail, 2)]
    for state in PathState:
        assert (state.value or "empty") in states
