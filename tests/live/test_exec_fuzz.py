"""fanotify_init(2) and fanotify_mark(2) answer under ``fserr-bpf exec`` as the kernel does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from compare.bootable import bootable
from fserr_bpf.errors import LabError, MarkError
from fserr_bpf.live.fanotify import FanotifyGroup
from tests.exec_clients import COMMAND, COMPILER, compile_c, under_exec
from tests.live.call_objects import call_objects
from tests.live.conftest import IN_LAB, skip

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

SEEDS = (2026, 4)
CALLS = 24_000
NOBODY = "65534"


class Call(NamedTuple):
    """A line of tests/clients/calls.c."""

    what: str
    group: str
    flags: int
    mask: int
    dirfd: str
    path: str
    result: str


def parsed(line: str) -> Call:
    words = re.fullmatch(r"\d+ (\w+) (\S+)(.*?)(?: -> (.*))?", line)
    assert words is not None, line
    rest = words[3]

    def field(name: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", rest)
        return found[1] if found else "0"

    path = re.search(r" path=(.*)", rest)
    return Call(
        words[1],
        words[2],
        int(field("flags"), 16),
        int(field("mask"), 16),
        field("dirfd"),
        path[1] if path else "",
        words[4] or "",
    )


KNOWN: dict[str, Callable[[Call, Call], bool]] = {}
"""Which calls a reason explains: the kernel's line, and ours, which differs."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    return compile_c(tmp_path_factory.mktemp("calls"), "calls")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What it marks."""
    with call_objects(tmp_path_factory.mktemp("objects") / "objects") as directory:
        yield directory


def lines_of(command: Sequence[str | Path]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("user", [(), (NOBODY,)], ids=["root", "nobody"])
def test_the_kernel_gives_the_same_twice(calls: Path, objects: Path, user: tuple[str, ...]) -> None:
    """Otherwise a difference would not tell anything."""
    command = [str(calls), str(SEEDS[0]), str(CALLS), str(objects), *user]
    once = lines_of(command)
    assert once == lines_of(command)
    assert len(once) == CALLS
    results = Counter((call.what, call.result) for call in map(parsed, once))
    successes = [number for (_, result), number in results.items() if result == "0"]
    assert len(successes) == 2
    errnos = {result for what, result in results if what == "mark"}
    common = {"EBADF", "EFAULT", "EINVAL", "EISDIR", "ENOENT", "ENOTDIR", "ENAMETOOLONG"}
    assert errnos >= common | ({"EACCES", "EPERM"} if user else {"ELOOP", "EOPNOTSUPP", "EXDEV"})


def reason_for(native: Call, ours: Call) -> str:
    """The known reason of a difference, "" if there is none."""
    return next((reason for reason, explains in KNOWN.items() if explains(native, ours)), "")


def compare_calls(command: list[str], stream: str) -> None:
    """Make the same calls natively and taken over; what differs has to be known.

    Prints a table of the differences, of which every known reason explains at least one.
    """
    native = lines_of(command)
    ours = lines_of(under_exec(*command, options=("--stream", stream)))
    assert len(native) == len(ours)
    differences = [
        (reason_for(parsed(one), parsed(other)), one, other)
        for one, other in zip(native, ours, strict=True)
        if one != other
    ]
    print(f"{len(native)} calls, {len(differences)} differ")
    for reason, number in Counter(reason for reason, _, _ in differences).items():
        print(f"{number:6} {reason or 'for no known reason'}")
    unknown = [(one, other) for reason, one, other in differences if not reason]
    assert not unknown, "\n".join(f"kernel: {one}\nours:   {other}" for one, other in unknown[:20])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("user", [(), (NOBODY,)], ids=["root", "nobody"])
def test_calls_are_answered_as_by_the_kernel(
    calls: Path, objects: Path, seed: int, user: tuple[str, ...]
) -> None:
    compare_calls([str(calls), str(seed), str(CALLS), str(objects), *user], "fserror")


def test_calls_are_answered_as_by_the_patched_kernel(calls: Path, objects: Path) -> None:
    """The flags and marks that the proposed stream adds."""
    try:
        with FanotifyGroup() as group:
            group.mark_inode(str(objects / "e/file"))
    except MarkError:
        skip("only the patched kernel takes FAN_FS_ERROR in inode marks", expected=True)
    compare_calls([str(calls), str(SEEDS[0]), str(CALLS), str(objects)], "proposed")


def test_in_the_patched_kernel() -> None:
    if IN_LAB:
        skip("the host boots it", expected=True)
    try:
        bootable("patched")
    except LabError as error:  # ten minutes: not in every run of the tests
        skip(str(error), expected=True)
    tests = f"{__file__}::{test_calls_are_answered_as_by_the_patched_kernel.__name__}"
    pytest_there = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    done = subprocess.run(
        [COMMAND, "lab", "run", "--kernel", "patched", "--", *pytest_there],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
