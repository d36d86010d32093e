"""Where clients of the tests are, and how they are made to say the same natively and under exec."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf_compare.faults.scratch import Scratch
from tests.exec_clients import Running, numbered, under_exec, with_names
from tests.live.conftest import DEADLINE_SECONDS, kernel_version, require_mark, skip
from tests.live.exec_scenarios import Scenario

EVENTS = ("fs_error ", "other ", "overflow ")


@dataclass(frozen=True)
class Place:
    """Two ext4 file systems, the client in C, and a directory for what it says."""

    reader: Path
    fs: Scratch
    other: Scratch
    directory: Path

    def client(self, words: str) -> list[str]:
        """The client with ``words`` as in exec_scenarios.py."""
        filled = words.format(
            mnt=self.fs.mount_point,
            other=self.other.mount_point,
            trigger=f"/sys/fs/ext4/{self.fs.device_name}/trigger_fs_error",
            other_trigger=f"/sys/fs/ext4/{self.other.device_name}/trigger_fs_error",
        )
        return [str(self.reader), *filled.split()]

    def said(self, command: Sequence[str]) -> tuple[int, list[str]]:
        """Status and lines of a client that needs nobody, without the numbers of processes."""
        with Running(self.directory, command) as client:
            status = client.end(3 * DEADLINE_SECONDS)
            return status, with_names(client.lines(), {client.pid: "self"})


def require_exact_kernel() -> None:
    """Skip where the kernel's own group is no measure."""
    require_mark()
    if kernel_version() >= (7, 0):
        skip("a kernel worker reports the errors, later and with its own pid", expected=True)


def events_in(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.startswith(EVENTS)]


Played = dict[str, list[str]]


def by_kind(lines: Sequence[str]) -> list[str]:
    """``lines`` with the errors of each read in front of its other events."""
    result: list[str] = []
    others: list[str] = []
    for line in lines:
        if line.startswith("other "):
            others.append(line)
            continue
        if not line.startswith("fs_error "):
            result += others
            others = []
        result.append(line)
    return result + others


def play(
    place: Place,
    scenarios: Sequence[Scenario],
    options: Sequence[str] | None,
    arranged: Callable[[list[str]], list[str]] = list,
) -> Played:
    """What the client says in each, and its status: all under one exec, or natively for None.

    One, because attaching the probes takes longer than all of them. What is ``arranged`` then has
    its pids numbered.
    """
    for made in place.fs.mount_point.glob("new*"):
        made.unlink()
    parts = (
        f"echo scenario {s.name}; {shlex.join(place.client(s.words))}; echo status $?"
        for s in scenarios
    )
    shell = ["sh", "-c", "; ".join(parts)]
    command = shell if options is None else under_exec(*shell, options=options)
    with Running(place.directory, command) as client:
        assert client.end(6 * DEADLINE_SECONDS) == 0
        _, *told = "\n".join(client.lines()).split("scenario ")
    return {
        name: numbered(arranged(lines)) for name, *lines in (text.splitlines() for text in told)
    }
