"""The filter as the kernel would run it, and the layouts against the C headers."""

from __future__ import annotations

from pathlib import Path
from struct import Struct

import pytest

from fserr_bpf.tasks.seccomp import FILTER
from fserr_bpf.uapi import seccomp
from tests.c_reader import COMPILER
from tests.unit.test_uapi_layout import compile_and_run, expected_fields, show_fields

X86_64, I386, ARM64 = 0xC000003E, 0x40000003, 0xC00000B7
X32 = 1 << 30
ALLOW, USER_NOTIF = 0x7FFF0000, 0x7FC00000

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)")

LAYOUTS = {
    seccomp.NOTIF_SIZES: (
        "struct seccomp_notif_sizes",
        ("seccomp_notif", "seccomp_notif_resp", "seccomp_data"),
    ),
    seccomp.SECCOMP_DATA: (
        "struct seccomp_data",
        ("nr", "arch", "instruction_pointer", *(f"args[{i}]" for i in range(6))),
    ),
    seccomp.NOTIF: (
        "struct seccomp_notif",
        (
            *("id", "pid", "flags", "data.nr", "data.arch", "data.instruction_pointer"),
            *(f"data.args[{i}]" for i in range(6)),
        ),
    ),
    seccomp.NOTIF_RESP: ("struct seccomp_notif_resp", ("id", "val", "error", "flags")),
    seccomp.NOTIF_ADDFD: (
        "struct seccomp_notif_addfd",
        ("id", "flags", "srcfd", "newfd", "newfd_flags"),
    ),
    seccomp.SOCK_FILTER: ("struct sock_filter", ("code", "jt", "jf", "k")),
}
INCLUDES = [
    *("<linux/seccomp.h>", "<linux/filter.h>", "<linux/audit.h>", "<sys/ioctl.h>"),
    "<asm/unistd.h>",
]
SPELLED = {
    "BPF_LD_W_ABS": "BPF_LD | BPF_W | BPF_ABS",
    "BPF_JMP_JEQ_K": "BPF_JMP | BPF_JEQ | BPF_K",
    "BPF_RET_K": "BPF_RET | BPF_K",
    **{
        f"NR_{name.upper()}": f"__NR_{name}"
        for name in ("fanotify_init", "fanotify_mark", "seccomp")
    },
}
# Compared where the system's header has them: Debian 12's is that of 6.1.
NEWER = {"SECCOMP_IOCTL_NOTIF_SET_FLAGS", "SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP"}


def verdict(arch: int, number: int) -> int:
    """What the filter returns, by the rules of Documentation/networking/filter.rst."""
    data = Struct("<II").pack(number, arch)
    program = list(Struct("<HBBI").iter_unpack(FILTER))
    accumulator = position = 0
    while True:
        code, if_true, if_false, k = program[position]
        position += 1
        if code == 0x20:
            (accumulator,) = Struct("<I").unpack_from(data, k)
        elif code == 0x15:
            position += if_true if accumulator == k else if_false
        else:
            assert code == 0x06
            return int(k)


def test_two_calls_of_one_architecture_are_taken() -> None:
    for arch in (X86_64, I386, ARM64):
        for number in range(1024):
            taken = arch == X86_64 and number in (300, 301)
            assert verdict(arch, number) == (USER_NOTIF if taken else ALLOW), (arch, number)
            assert verdict(arch, number | X32) == ALLOW


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: LAYOUTS[layout][0])
def test_layout_is_that_of_the_header(tmp_path: Path, layout: Struct) -> None:
    struct, fields = LAYOUTS[layout]
    lines = compile_and_run(tmp_path, INCLUDES, show_fields(struct, fields))
    expanded = Struct(layout.format.replace("6Q", "QQQQQQ"))
    assert lines == expected_fields(expanded)


@needs_compiler
def test_numbers_are_those_of_the_header(tmp_path: Path) -> None:
    numbers = {
        name: value
        for name, value in vars(seccomp).items()
        if name.isupper() and isinstance(value, int)
    }
    assert len(numbers) == 23
    statements = []
    for name, value in numbers.items():
        spelled = SPELLED.get(name, name)
        if name in NEWER:
            statements += [f"#ifndef {name}", f"#define {name} {value}U", "#endif"]
        statements.append(f'printf("{name} %llu\\n", (unsigned long long)({spelled}));')
    lines = compile_and_run(tmp_path, INCLUDES, statements)
    assert lines == [[name, str(value)] for name, value in numbers.items()]
