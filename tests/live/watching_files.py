"""``fserr-bpf watch-files`` as a process, and files whose writeback fails, for tests."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fserr_bpf_compare.faults.cutting import MKFS_OPTIONS, MOUNT_OPTIONS, last_victim, write_victims
from fserr_bpf_compare.faults.extents import first_physical
from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from fserr_bpf_compare.ready import Ready
from tests.live.conftest import ATTACH_SECONDS, child_running, wait_until

COMMAND = (str(Path(sys.executable).with_name("fserr-bpf")), "watch-files")
ACCOUNT = (
    r"fserr-bpf: (\d+) errors of files seen = (\d+) matched in (\d+) events \+ (\d+) elsewhere"
    r" \+ (\d+) of unknown path(?:; (\d+) lines not written)?; (\d+) lost; 0 missed by probes"
)
HOOKS = (
    r"; hooks: (\d+) run, (\d+) failed, (\d+) timed out, (\d+) joined a later run, (\d+) dropped"
)


class Watching:
    """The command, attached; what it prints is in files."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path) -> None:
        self.process = process
        self._home = home

    def events(self) -> list[dict[str, Any]]:
        """The objects of JSON so far, by complete lines."""
        lines = (self._home / "stdout").read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def said(self) -> list[str]:
        """What it, or a hook, has said on standard error so far, by complete lines."""
        return (self._home / "stderr").read_text(errors="surrogateescape").split("\n")[:-1]

    def hooked(self) -> list[str]:
        """What hooks have appended to the file ``$HOOKED`` so far."""
        file = self._home / "hooked"
        return file.read_text().split("\n")[:-1] if file.exists() else []

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def account(self, *, flood: bool = False) -> tuple[int, bool, bool]:
        """Of the last line: matched events, whether there was anything elsewhere, and unknown.

        The numbers have to add up, and those that matched are those that were printed; only a
        ``flood`` may find the ring full. How often a kernel reports one failed write is its own
        affair.
        """
        found = re.match(ACCOUNT, self.said()[-1])
        assert found is not None, self.said()
        seen, matched, events, elsewhere, unknown = map(int, found.groups()[:5])
        assert seen == matched + elsewhere + unknown
        assert flood or found[7] == "0"
        printed = self.events()
        assert matched == sum(event["error_count"] for event in printed)
        assert events == len(printed)
        return events, elsewhere > 0, unknown > 0

    def hooks(self) -> list[int]:
        """run, failed, timed out, joined, dropped of the last line."""
        found = re.fullmatch(ACCOUNT + HOOKS, self.said()[-1])
        assert found is not None, self.said()
        return [int(number) for number in found.groups()[7:]]


@contextmanager
def watching(
    home: Path, *arguments: str, hook: str | None = None, stdout: int | IO[bytes] | None = None
) -> Iterator[Watching]:
    """``watch-files --format json`` with these arguments, from attached to the end of the block.

    ``hook`` has the file to append to as ``$HOOKED``.
    """
    for name in ("stdout", "stderr", "hooked"):
        (home / name).unlink(missing_ok=True)
    words = [*COMMAND, "--format", "json"]
    if hook is not None:
        words += ["--on-error", f"HOOKED='{home}/hooked'; {hook}"]
    with (
        Ready() as ready,
        (home / "stdout").open("wb") as out,
        (home / "stderr").open("wb") as err,
        subprocess.Popen(
            [*words, *ready.options, *arguments],
            stdout=stdout or out,
            stderr=err,
            pass_fds=ready.pass_fds,
        ) as process,
    ):
        started = Watching(process, home)
        try:
            assert ready.wait(ATTACH_SECONDS), started.said()
            yield started
        finally:
            process.kill()


@contextmanager
def breakable(fstype: str = "ext4") -> Iterator[tuple[Scratch, Path]]:
    """A file system, and a folder of it whose files have their data behind everything else."""
    options = MOUNT_OPTIONS[fstype]
    with scratch(fstype, mkfs_options=MKFS_OPTIONS[fstype], mount_options=options) as fs:
        write_victims(fs)
        folder = Path(last_victim(fs)).parent
        yield fs, folder


def new_file(path: Path) -> Path:
    """A file with a page of data that has reached the device."""
    run_child("dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=1", "conv=fsync", path=str(path))
    return path


@contextmanager
def failing(fs: Scratch, *paths: Path) -> Iterator[None]:
    """Until the end of the block the device ends in front of the data of these files."""
    fs.shrink_device(min(map(first_physical, paths)))
    try:
        yield
    finally:
        fs.restore_device()


def write(path: Path) -> int:
    """Fail to write one page of data of a file, once; returns the pid of the one who tried."""
    dd = ("dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=1", "conv=notrunc,fsync")
    caused = run_child(*dd, path=str(path))
    assert caused.returncode == 1
    assert "Input/output error" in caused.stderr, caused.stderr
    return caused.pid


def runner_of(started: Watching) -> int:
    """The process that runs the hooks."""
    return child_running(started.process.pid, "fserr_bpf.hooks.runner")


def paths(started: Watching) -> list[str]:
    """Those of the events, each once, in order: a busy machine may split the reports of one
    failed write."""
    return list(dict.fromkeys(event["path"] for event in started.events()))


def hooked(started: Watching) -> list[str]:
    """What the hooks noted, each line once."""
    return list(dict.fromkeys(started.hooked()))


def account(started: Watching) -> tuple[bool, bool]:
    """Whether there were errors elsewhere and of unknown path; the rest adds up."""
    events, elsewhere, unknown = started.account()
    run_, failed, timed_out, joined, dropped = started.hooks()
    assert (run_ + joined + dropped, failed, timed_out) == (events, 0, 0)
    assert len(started.hooked()) == run_
    return elsewhere, unknown


def wait_for_paths(started: Watching, count: int) -> None:
    wait_until(lambda: len(paths(started)) >= count, f"events of {count} files")


def wait_for_hooks(started: Watching, count: int) -> None:
    wait_until(lambda: len(hooked(started)) >= count, f"hooks for {count} files")
