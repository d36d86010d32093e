"""The Python layouts against the C headers, through the C compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from struct import Struct, calcsize

import pytest

from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.uapi import exportfs, fanotify, record
from fserr_bpf.uapi import fcntl as uapi_fcntl

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)")

LAYOUTS = {
    fanotify.METADATA: (
        "struct fanotify_event_metadata",
        ("event_len", "vers", "reserved", "metadata_len", "mask", "fd", "pid"),
    ),
    fanotify.INFO_HEADER: (
        "struct fanotify_event_info_header",
        ("info_type", "pad", "len"),
    ),
    fanotify.INFO_FID: (
        "struct fanotify_event_info_fid",
        ("hdr.info_type", "hdr.pad", "hdr.len", "fsid.val[0]", "fsid.val[1]"),
    ),
    fanotify.INFO_PIDFD: (
        "struct fanotify_event_info_pidfd",
        ("hdr.info_type", "hdr.pad", "hdr.len", "pidfd"),
    ),
    fanotify.INFO_ERROR: (
        "struct fanotify_event_info_error",
        ("hdr.info_type", "hdr.pad", "hdr.len", "error", "error_count"),
    ),
    exportfs.FILE_HANDLE: ("struct file_handle", ("handle_bytes", "handle_type")),
}

# Compared where the system's header has them: Debian 12's is that of 6.1.
NEWER = {"FAN_REPORT_FD_ERROR"}


def compile_and_run(tmp_path: Path, includes: list[str], statements: list[str]) -> list[list[str]]:
    """Run the C statements and return the words of each line they print."""
    source = "\n".join(
        [
            "#define _GNU_SOURCE",
            "#include <stddef.h>",
            "#include <stdio.h>",
            *(f"#include {name}" for name in includes),
            "#define SIGNED(x) ((__typeof__(x))-1 < (__typeof__(x))1)",
            "int main(void) {",
            *statements,
            "return 0; }",
        ]
    )
    program = tmp_path / "layout"
    (tmp_path / "layout.c").write_text(source)
    command = [str(COMPILER), "-I", str(ROOT / "bpf"), "-o", str(program)]
    subprocess.run([*command, str(tmp_path / "layout.c")], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in output.splitlines()]


def show_fields(struct: str, fields: tuple[str, ...]) -> list[str]:
    """C that prints offset, size and signedness of ``fields``, then the whole size."""
    variable = f"static {struct} v; v = v;"
    lines = [
        f'printf("%zu %zu %d\\n", offsetof({struct}, {name}), sizeof v.{name}, SIGNED(v.{name}));'
        for name in fields
    ]
    return ["{", variable, *lines, f'printf("%zu\\n", sizeof({struct}));', "}"]


def expected_fields(layout: Struct) -> list[list[str]]:
    """The same lines from a ``struct`` format of single items, ``16s`` being one."""
    lines, offset, digits = [], 0, ""
    for code in layout.format.removeprefix("<"):
        if code.isdigit():
            digits += code
            continue
        size = calcsize("<" + digits + code)
        lines.append([str(offset), str(size), str(int(code.islower() and code != "s"))])
        offset, digits = offset + size, ""
    return [*lines, [str(offset)]]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: LAYOUTS[layout][0])
def test_layout_is_that_of_the_header(tmp_path: Path, layout: Struct) -> None:
    struct, fields = LAYOUTS[layout]
    includes = ["<linux/fanotify.h>", "<fcntl.h>"]
    lines = compile_and_run(tmp_path, includes, show_fields(struct, fields))
    if layout is fanotify.INFO_FID:
        # int in C; here unsigned, so that an fsid prints as two hexadecimal words
        assert [line.pop() for line in lines[3:5]] == ["1", "1"]
        for line in lines[3:5]:
            line.append("0")
    assert lines == expected_fields(layout)


def test_numbers_are_those_of_the_header(tmp_path: Path) -> None:
    numbers = {
        name: value for name, value in vars(fanotify).items() if name.startswith(("FAN_", "FANOTI"))
    }
    assert len(numbers) == 44
    statements = []
    for name, value in numbers.items():
        printed = f'printf("{name} %lld\\n", (long long){name});'
        if name in NEWER:
            statements += [f"#ifndef {name}", f"#define {name} {value}", "#endif"]
        statements.append(printed)
    statements.append('printf("%d\\n", MAX_HANDLE_SZ);')
    lines = compile_and_run(tmp_path, ["<linux/fanotify.h>", "<fcntl.h>"], statements)
    assert lines.pop() == [str(exportfs.MAX_HANDLE_SZ)]
    assert lines == [[name, str(value)] for name, value in numbers.items()]


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        ("fcntl", {k: v for k, v in vars(uapi_fcntl).items() if k.startswith("AT_")}),
        ("capability", {f"CAP_{capability.name}": int(capability) for capability in Capability}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_of_other_headers(tmp_path: Path, header: str, numbers: dict[str, int]) -> None:
    assert len(numbers) > 3
    statements = [f'printf("{name} %d\\n", (int){name});' for name in numbers]
    lines = compile_and_run(tmp_path, [f"<linux/{header}.h>"], statements)
    assert lines == [[name, str(value)] for name, value in numbers.items()]


def test_statx_is_read_where_the_header_has_it(tmp_path: Path) -> None:
    fields = ("stx_ino", "stx_dev_major", "stx_dev_minor", "stx_mnt_id")
    lines = compile_and_run(tmp_path, ["<linux/stat.h>"], show_fields("struct statx", fields))
    assert lines == [
        *([str(syscalls.STX_INO), "8", "0"], [str(syscalls.STX_DEV), "4", "0"]),
        *([str(syscalls.STX_DEV + 4), "4", "0"], [str(syscalls.STX_MNT_ID), "8", "0"]),
        [str(syscalls.STX_SIZE)],
    ]
    numbers = 'printf("%d %d\\n", STATX_INO, STATX_MNT_ID);'
    (line,) = compile_and_run(tmp_path, ["<linux/stat.h>"], [numbers])
    assert line == [str(syscalls.STATX_INO), str(syscalls.STATX_MNT_ID)]


def test_handle_layouts_are_as_long_as_the_file_systems_say() -> None:
    # xfs: sizeof(struct xfs_fid64) without parent; btrfs: BTRFS_FID_SIZE_NON_CONNECTABLE * 4
    assert exportfs.INO32_GEN.size == 8
    assert exportfs.INO64_GEN.size == 12
    assert exportfs.BTRFS_WITHOUT_PARENT.size == 20


def test_record_is_that_of_bpf_fserr_h(tmp_path: Path) -> None:
    names = record.Record._fields
    includes = ["<linux/types.h>", '"fserr.h"']
    lines = compile_and_run(tmp_path, includes, show_fields("struct fserr_record", names[:-2]))
    expected = expected_fields(record.RECORD)
    assert lines == [*expected[: len(names) - 2], expected[-1]]
    arrays = [
        f'printf("%zu %zu\\n", offsetof(struct fserr_record, {name}), '
        f"sizeof ((struct fserr_record *)0)->{name});"
        for name in names[-2:]
    ]
    lines = compile_and_run(tmp_path, includes, arrays)
    assert lines == [line[:2] for line in expected[len(names) - 2 : -1]]


def test_record_numbers_are_those_of_bpf_fserr_h(tmp_path: Path) -> None:
    numbers = {
        "FSERR_VERSION": record.FSERR_VERSION,
        "FSERR_PROBE_MAX": record.FSERR_PROBE_MAX,
        **{f"FSERR_PROBE_{probe.name}": int(probe) for probe in record.Probe},
        **{f"FSERR_{flag.name}": int(flag) for flag in record.Flag},
    }
    statements = [f'printf("{name} %d\\n", (int){name});' for name in numbers]
    lines = compile_and_run(tmp_path, ["<linux/types.h>", '"fserr.h"'], statements)
    assert lines == [[name, str(value)] for name, value in numbers.items()]
