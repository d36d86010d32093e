"""fanotify_init(2) and fanotify_mark(2) answer under ``fserr-bpf exec`` as the kernel does."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError, MarkError
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf_compare.machines.bootable import bootable
from tests.exec_clients import COMMAND, COMPILER, compile_c, under_exec
from tests.live.call_objects import call_objects
from tests.live.conftest import IN_LAB, skip

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

SEEDS = (2026, 4)
CALLS = 12_000
NOBODY = "65534"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    return compile_c(tmp_path_factory.mktemp("calls"), "calls")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What it marks."""
    with call_objects(tmp_path_factory.mktemp("objects") / "objects") as directory:
        yield directory


def outcome(line: str) -> tuple[str, str]:
    """What was called and the result of a line of tests/clients/calls.c; "" if it has none."""
    words, arrow, result = line.partition(" -> ")
    return words.split()[1], result if arrow else ""


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
    results = Counter((what, result) for what, result in map(outcome, once) if result)
    assert results["init", "0"] > CALLS // 100
    assert results["mark", "0"] > CALLS // 1000
    errnos = {result for what, result in results if what == "mark"}
    common = {"EBADF", "EFAULT", "EINVAL", "EISDIR", "ENOENT", "ENOTDIR", "ENAMETOOLONG"}
    assert errnos >= common | ({"EACCES", "EPERM"} if user else {"ELOOP", "EOPNOTSUPP", "EXDEV"})


def compare_calls(command: list[str], *options: str) -> None:
    """Make the same calls natively and taken over: every line has to be the same."""
    native = lines_of(command)
    ours = lines_of(under_exec(*command, options=options))
    assert len(native) == len(ours) == CALLS
    different = [
        f"kernel: {one}\nours:   {other}"
        for one, other in zip(native, ours, strict=True)
        if one != other
    ]
    assert not different, "\n".join([f"{len(different)} lines differ", *different[:20]])


@pytest.mark.parametrize("options", [(), ("--exact",)], ids=["pipe", "exact"])
@pytest.mark.parametrize(
    ("seed", "user"),
    [(SEEDS[0], ()), (SEEDS[1], ()), (SEEDS[0], (NOBODY,))],
    ids=["root", "root again", "nobody"],
)
def test_calls_are_answered_as_by_the_kernel(
    calls: Path, objects: Path, seed: int, user: tuple[str, ...], options: tuple[str, ...]
) -> None:
    command = [str(calls), str(seed), str(CALLS), str(objects), *user]
    compare_calls(command, "--stream", "fserror", *options)


def test_calls_are_answered_as_by_the_patched_kernel(calls: Path, objects: Path) -> None:
    """The flags and marks that the proposed stream adds."""
    try:
        with FanotifyGroup() as group:
            group.mark_inode(str(objects / "e/file"))
    except MarkError:
        skip("only the patched kernel takes FAN_FS_ERROR in inode marks", expected=True)
    compare_calls([str(calls), str(SEEDS[0]), str(CALLS), str(objects)])


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
