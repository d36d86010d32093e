"""The layouts and numbers of the FUSE protocol against <linux/fuse.h>."""

from __future__ import annotations

from pathlib import Path
from struct import Struct

import pytest

from fserr_bpf.uapi import fuse
from tests.c_reader import COMPILER
from tests.unit.test_uapi_layout import compile_and_run, expected_fields, show_fields

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)")

HEADER = ["<linux/fuse.h>"]
WHOLE = {
    fuse.IN_HEADER: (
        "struct fuse_in_header",
        ("len", "opcode", "unique", "nodeid", "uid", "gid", "pid"),
    ),
    fuse.OUT_HEADER: ("struct fuse_out_header", ("len", "error", "unique")),
    fuse.ATTR: (
        "struct fuse_attr",
        (
            *("ino", "size", "blocks", "atime", "mtime", "ctime", "atimensec", "mtimensec"),
            *("ctimensec", "mode", "nlink", "uid", "gid", "rdev", "blksize", "flags"),
        ),
    ),
    fuse.OPEN_OUT: ("struct fuse_open_out", ("fh", "open_flags")),
    fuse.STATFS_OUT: (
        "struct fuse_statfs_out",
        tuple(
            f"st.{field}"
            for field in (
                *("blocks", "bfree", "bavail", "files", "ffree", "bsize", "namelen", "frsize"),
                "padding",
            )
        ),
    ),
    fuse.READ_IN: (
        "struct fuse_read_in",
        ("fh", "offset", "size", "read_flags", "lock_owner", "flags"),
    ),
    fuse.INTERRUPT_IN: ("struct fuse_interrupt_in", ("unique",)),
    fuse.POLL_IN: ("struct fuse_poll_in", ("fh", "kh", "flags", "events")),
    fuse.POLL_OUT: ("struct fuse_poll_out", ("revents",)),
    fuse.NOTIFY_POLL_WAKEUP_OUT: ("struct fuse_notify_poll_wakeup_out", ("kh",)),
}
"""Compared whole; a last field of padding, whose name changes, is left out."""

PARTS = {
    fuse.INIT_IN: ("struct fuse_init_in", ("major", "minor", "max_readahead", "flags")),
    fuse.INIT_OUT: (
        "struct fuse_init_out",
        (
            *("major", "minor", "max_readahead", "flags", "max_background"),
            *("congestion_threshold", "max_write", "time_gran", "max_pages", "map_alignment"),
        ),
    ),
    fuse.ENTRY_OUT: (
        "struct fuse_entry_out",
        ("nodeid", "generation", "entry_valid", "attr_valid", "entry_valid_nsec"),
    ),
    fuse.ATTR_OUT: ("struct fuse_attr_out", ("attr_valid", "attr_valid_nsec")),
}
"""Compared up to where the structure goes on with something else."""


@pytest.mark.parametrize("layout", WHOLE, ids=lambda layout: WHOLE[layout][0])
def test_layout_is_that_of_the_header(tmp_path: Path, layout: Struct) -> None:
    struct, fields = WHOLE[layout]
    lines = compile_and_run(tmp_path, HEADER, show_fields(struct, fields))
    expected = expected_fields(layout)
    assert lines == [*expected[: len(fields)], expected[-1]]


@pytest.mark.parametrize("layout", PARTS, ids=lambda layout: PARTS[layout][0])
def test_layout_begins_as_that_of_the_header(tmp_path: Path, layout: Struct) -> None:
    struct, fields = PARTS[layout]
    lines = compile_and_run(tmp_path, HEADER, show_fields(struct, fields))
    assert lines[:-1] == expected_fields(layout)[: len(fields)]


def test_attributes_follow_at_the_end(tmp_path: Path) -> None:
    statements = [
        f'printf("%zu\\n", offsetof({struct}, attr));'
        for struct in ("struct fuse_entry_out", "struct fuse_attr_out")
    ]
    sizes = [[str(fuse.ENTRY_OUT.size)], [str(fuse.ATTR_OUT.size)]]
    assert compile_and_run(tmp_path, HEADER, statements) == sizes
    size = compile_and_run(tmp_path, HEADER, ['printf("%zu\\n", sizeof(struct fuse_init_out));'])
    assert size == [[str(fuse.INIT_OUT.size)]]


def test_numbers_are_those_of_the_header(tmp_path: Path) -> None:
    numbers = {
        name: value for name, value in vars(fuse).items() if name.startswith(("FUSE_", "FOPEN_"))
    }
    numbers |= {f"FUSE_{opcode.name}": int(opcode) for opcode in fuse.Opcode}
    assert len(numbers) == 24
    statements = [f'printf("{name} %lld\\n", (long long){name});' for name in numbers]
    lines = compile_and_run(tmp_path, HEADER, statements)
    assert lines == [[name, str(value)] for name, value in numbers.items()]
