"""The filter as the kernel would run it, and the layouts against the C headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from struct import Struct

import pytest

from fserr_bpf.exec.fanotifycalls import STOPPED
from fserr_bpf.tasks.filter import Rule, program
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
    "BPF_JMP_JSET_K": "BPF_JMP | BPF_JSET | BPF_K",
    "BPF_RET_K": "BPF_RET | BPF_K",
    **{
        f"NR_{name.upper()}": f"__NR_{name}"
        for name in ("fanotify_init", "fanotify_mark", "seccomp")
    },
}
# Compared where the system's header has them: Debian 12's is that of 6.1.
NEWER = {"SECCOMP_IOCTL_NOTIF_SET_FLAGS", "SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP"}


def verdict(rules: Sequence[Rule], arch: int, number: int, *arguments: int) -> int:
    """What the filter returns, by the rules of Documentation/networking/filter.rst.

    KeyError if it loads an argument that is not given.
    """
    words = dict(enumerate((number, arch)))
    for at, argument in enumerate(arguments):
        words[4 + 2 * at], words[5 + 2 * at] = argument & (1 << 32) - 1, argument >> 32
    code = list(Struct("<HBBI").iter_unpack(program(rules)))
    accumulator = position = 0
    while True:
        instruction, if_true, if_false, k = code[position]
        position += 1
        if instruction == 0x20:
            accumulator = words[k // 4]
        elif instruction == 0x15:
            position += if_true if accumulator == k else if_false
        elif instruction == 0x45:
            position += if_true if accumulator & k else if_false
        else:
            assert instruction == 0x06
            return int(k)


def test_two_calls_of_one_architecture_are_taken() -> None:
    """All others without a look at their arguments, so that the kernel remembers them."""
    rules = (Rule(300, 0), Rule(301, 2))
    for arch in (X86_64, I386, ARM64):
        for number in range(1024):
            taken = arch == X86_64 and number in (300, 301)
            arguments = (0, 0, 0) if taken else ()
            expected = USER_NOTIF if taken else ALLOW
            assert verdict(rules, arch, number, *arguments) == expected, (arch, number)
            assert verdict(rules, arch, number | X32) == ALLOW


def test_bits_of_the_argument_decide() -> None:
    rules = (Rule(300, 1, stops=6, passes=9), Rule(301, 0, stops=2, passes=4, otherwise=False))
    for bits, expected in ((2, True), (4, True), (10, True), (8, False), (1, False), (0, True)):
        assert (verdict(rules, X86_64, 300, 0, bits) == USER_NOTIF) is expected, bits
        assert (verdict(rules, X86_64, 300, 0, bits | 1 << 33) == USER_NOTIF) is expected
    for bits, expected in ((2, True), (6, True), (4, False), (0, False), (1, False)):
        assert (verdict(rules, X86_64, 301, bits) == USER_NOTIF) is expected, bits


@pytest.mark.parametrize(
    ("number", "argument", "taken"),
    [
        *((300, flags, False) for flags in (0, 4, 8, 0x200, 0xE00, 0x3FFF, 0xFFFE7FFF)),
        *((300, flags, True) for flags in (0x8200, 0x10200, 0x18E03)),
        *((301, mask, True) for mask in (0, 0x8000, 0x40008000, 0x18000, 0x2, 0x40000FFF)),
        *((301, mask, False) for mask in (0x10000, 0x20002, 0x40001)),
    ],
)
def test_what_exec_is_asked_about(number: int, argument: int, taken: bool) -> None:
    """fanotify_init(2) for flags of the proposal; of marks not those for permission events."""
    arguments = (argument, 0, 0) if number == 300 else (3, 1, argument)
    assert (verdict(STOPPED, X86_64, number, *arguments) == USER_NOTIF) is taken


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
    assert len(numbers) == 24
    statements = []
    for name, value in numbers.items():
        spelled = SPELLED.get(name, name)
        if name in NEWER:
            statements += [f"#ifndef {name}", f"#define {name} {value}U", "#endif"]
        statements.append(f'printf("{name} %llu\\n", (unsigned long long)({spelled}));')
    lines = compile_and_run(tmp_path, INCLUDES, statements)
    assert lines == [[name, str(value)] for name, value in numbers.items()]
