"""What the comments in bpf/ say about kernels, and that no branch there is obsolete."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from fserr_bpf_compare.machines.kernels import KERNELS

BPF = Path(__file__).parents[2] / "bpf"
FILES = sorted([*BPF.glob("*.h"), *BPF.glob("*.c")])
ALWAYS, STILL = (0, 0), (999, 0)

# " * kernel FIRST..LAST: words", see bpf/common.h
STATEMENT = re.compile(r"^ \* kernel ((\d+\.\d+)?\.\.(\d+\.\d+)?): \S", re.MULTILINE)
NAME = re.compile(r"(\w+)\(|#define (\w+)|#if.*?(HAVE_\w+)")


class Branch(NamedTuple):
    """One way to read something, and the first and last kernel that need it."""

    file: str
    name: str
    first: tuple[int, int]
    last: tuple[int, int]


def version(text: str | None, otherwise: tuple[int, int]) -> tuple[int, int]:
    if not text:
        return otherwise
    major, minor = text.split(".")
    return int(major), int(minor)


def branches_in(file: str, text: str) -> list[Branch]:
    """The branches that the comments of a C file tell of, in its order."""
    found = []
    for comment in re.finditer(r"/\*.*?\*/", text, re.DOTALL):
        statements = list(STATEMENT.finditer(comment[0]))
        name = NAME.search(text, comment.end())
        for statement in statements:
            assert name is not None, f"{file}: {statement[0]!r} is about nothing"
            found.append(
                Branch(
                    file,
                    next(filter(None, name.groups())),
                    version(statement[2], ALWAYS),
                    version(statement[3], STILL),
                )
            )
    return found


def all_branches() -> list[Branch]:
    return [branch for file in FILES for branch in branches_in(file.name, file.read_text())]


def needless(branches: list[Branch], oldest: tuple[int, int]) -> list[str]:
    """Of which getters a branch can go when ``oldest`` is the oldest kernel."""
    return [branch.name for branch in branches if branch.last < oldest]


def oldest_kernel() -> tuple[int, int]:
    numbers = [re.match(r"\d+(\.\d+)?", kernel.name) for kernel in KERNELS]
    return min(version(n[0] if "." in n[0] else f"{n[0]}.0", STILL) for n in numbers if n)


def test_every_branch_is_needed_by_some_kernel_of_the_table() -> None:
    assert oldest_kernel() == (5, 10)
    assert needless(all_branches(), oldest_kernel()) == []


@pytest.mark.parametrize(
    ("oldest", "names"),
    [
        (
            (6, 1),
            [
                "kprobe_ext4_abort",
                "EXT4_ERROR_ARGUMENT",
                "xfs_is_shut_down",
                "HAVE_trace_xfs_buf_ioerror_error",
            ],
        ),
        (
            (6, 18),
            [
                "btrfs_has_failed",
                "kprobe_ext4_abort",
                "EXT4_ERROR_ARGUMENT",
                "kernfs_parent",
                "tracepoint_xfs_ag_sick",
                "xfs_is_shut_down",
                "xfs_group_mount",
                "HAVE_trace_xfs_buf_ioerror_error",
            ],
        ),
    ],
)
def test_what_a_younger_table_would_no_longer_need(
    oldest: tuple[int, int], names: list[str]
) -> None:
    assert needless(all_branches(), oldest) == names


def test_the_ranges_of_a_getter_leave_no_kernel_out() -> None:
    branches = all_branches()
    for before, after in itertools.pairwise(branches):
        if (before.file, before.name) == (after.file, after.name):
            assert before.last < after.first
            assert before.last != STILL
            assert after.first != ALWAYS
    for branch in branches:
        assert branch.first != ALWAYS or branch.last != STILL, f"{branch} is no difference"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_choice_between_members_tells_its_kernels(file: Path) -> None:
    """``#else`` and ``#elif`` of HAVE_... choose between kernels: the comment above says which."""
    text = file.read_text()
    told = {branch.name for branch in branches_in(file.name, text)}
    # nested conditions: what each #else belongs to, and the function around it
    stack: list[tuple[str, str]] = []
    function = ""
    for line in text.splitlines():
        if found := re.match(r"(?:static|int) .*?(\w+)\(", line):
            function = found[1]
        if line.startswith("#if"):
            stack.append((line, function))
        elif line.startswith(("#else", "#elif")):
            condition, inside = stack[-1]
            assert "HAVE_" not in condition or inside in told, f"{inside}: since and until when?"
        elif line.startswith("#endif"):
            stack.pop()


def test_statements_have_the_one_form() -> None:
    for file in FILES:
        text = file.read_text()
        alike = re.findall(r"^.*\bkernel +[\d.]*\.\.", text, re.MULTILINE)
        assert len(alike) == len(STATEMENT.findall(text)), (file.name, alike)


def test_a_statement_is_read() -> None:
    comment = "/*\n * Why.\n * kernel ..6.14: one\n * kernel 6.15..: other (a\n *   b)\n */\n"
    text = comment + "int f(void)\n"
    assert branches_in("x.h", text) == [
        Branch("x.h", "f", ALWAYS, (6, 14)),
        Branch("x.h", "f", (6, 15), STILL),
    ]
    assert needless(branches_in("x.h", text), (6, 14)) == []
    assert needless(branches_in("x.h", text), (6, 15)) == ["f"]
