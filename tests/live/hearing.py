"""Several groups over one set of probes, and files whose writes fail: what each mark hears.

An error that one group does not hear is proved by another that hears it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.source import Source
from fserr_bpf.group.statistics import Statistics
from fserr_bpf.helper.client import Helper
from fserr_bpf.helper.placelookup import Places
from fserr_bpf.marks.cgroups import CgroupFilter
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.event import FsErrorEvent, Fsid
from fserr_bpf.model.mark import Mark, SuperblockErrors
from fserr_bpf.model.queue import NotificationQueue, Result
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults.cutting import (
    MKFS_OPTIONS,
    MOUNT_OPTIONS,
    PAYLOAD,
    cut,
    write_victims,
)
from fserr_bpf_compare.faults.extents import first_physical
from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import skip, wait_until

_WRITE = f"""
import os, sys
how, path, *names = sys.argv[1:]
for name in names:
    os.stat(name)
file = os.open(path, os.O_WRONLY)
if how == "unlinked":
    os.unlink(path)
os.pwrite(file, b"y" * {PAYLOAD}, 0)
try:
    os.fsync(file)
except OSError:
    sys.exit(7)
"""


class Options(NamedTuple):
    """What marks are heard with, in all groups but ``all``."""

    ignore: Sequence[Mark] = ()
    superblock: SuperblockErrors = SuperblockErrors.FILESYSTEM
    cgroup: CgroupFilter | None = None


_PLAIN = Options()


class Unmerged(NotificationQueue):
    """Whose errors is the question here, and a worker of the kernel's may report for many."""

    def insert(
        self, fsid: Fsid, task: Hashable, make: Callable[[], FsErrorEvent], count: int = 1
    ) -> Result:
        return super().insert(fsid, object(), make, count)


class Ears:
    """Groups by name, each with its own marks; ``all`` hears the file systems of ``tops``."""

    def __init__(
        self,
        attached: AttachedProbes,
        tops: Sequence[str | Path],
        options: Options = _PLAIN,
        /,
        **marks: Mark,
    ) -> None:
        self._attached = attached
        self._helpers: list[Helper] = []
        self.groups: dict[str, ErrorGroup] = {}
        self.heard: dict[str, list[int]] = {}
        self.places: dict[str, Places | None] = {}
        with ExitStack() as stack:
            everything = MarkTable([Mark.filesystem(str(top)) for top in tops])
            self._add(stack, "all", everything)
            for name, mark in marks.items():
                table = MarkTable([mark], options.ignore, options.superblock)
                self._add(stack, name, table, options.cgroup)
            devices = {dev for group in self.groups.values() for dev in group.marks.devices()}
            attached.watch(self, devices)
            stack.callback(attached.watch, self, ())
            self.source = stack.enter_context(Source(attached, self.groups["all"].wanted))
            if self.source.kernel_group:
                for marked in everything:
                    self.source.kernel_group.mark(marked)
            self._stack = stack.pop_all()

    def _add(
        self, stack: ExitStack, name: str, marks: MarkTable, cgroup: CgroupFilter | None = None
    ) -> None:
        places = None
        if marks.partial:
            helper = stack.enter_context(Helper())
            helper.wait_until_ready()
            self._helpers.append(helper)
            places = stack.enter_context(Places(helper))
        group = ErrorGroup(
            *(Stream.PROPOSED, GroupFlags(), marks, self._attached, Unmerged(None)),
            places=places,
            cgroup=cgroup,
        )
        self.groups[name] = group
        self.places[name] = places
        self.heard[name] = []

    def __enter__(self) -> Ears:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pump(self) -> None:
        """Bring what waits, and note whose errors each group heard: 0 is the superblock."""
        self.source.pump(list(self.groups.values()))
        for helper in self._helpers:
            helper.receive()
        for name, group in self.groups.items():
            group.settle()
            while group.queue:
                event = group.pop()
                assert isinstance(event, FsErrorEvent)
                assert event.origin is not None
                self.heard[name].append(event.origin.ino if event.handle else 0)

    def statistics(self, name: str) -> Statistics:
        """The loss arithmetic of a group."""
        return self.groups[name].statistics(self._attached.missed())

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Pump until it holds."""

        def pumped() -> bool:
            self.pump()
            return condition()

        wait_until(pumped, what)

    def after(self, *inodes: int) -> dict[str, set[int]]:
        """Whose errors each group heard, once ``all`` has heard those and nothing waits."""

        def settled() -> bool:
            waiting = any(self.statistics(name).waiting for name in self.groups)
            return set(inodes) <= set(self.heard["all"]) and not waiting

        self.until(settled, f"errors of {inodes}")
        seen = {self.statistics(name).seen for name in self.groups}
        assert len(seen) == 1, "each error is in the arithmetic of every group"
        return {name: set(heard) for name, heard in self.heard.items()}

    def files_after(self, *inodes: int) -> dict[str, set[int]]:
        """The same without the superblock: btrfs counts each failed write for its device too."""
        return {name: heard - {0} for name, heard in self.after(*inodes).items()}


@contextmanager
def two_victims(fstype: str) -> Iterator[tuple[Scratch, Path, Path]]:
    """A file system with ``inside/victim`` and ``outside/victim``, behind all other data."""
    with scratch(
        fstype, mkfs_options=MKFS_OPTIONS[fstype], mount_options=MOUNT_OPTIONS[fstype]
    ) as fs:
        write_victims(fs)
        by_place = sorted(fs.mount_point.glob("group*/victim"), key=first_physical)
        found = []
        for name, victim in zip(("inside", "outside"), by_place[-2:], strict=True):
            # not new folders, which may lie behind the data
            found.append(victim.parent.rename(fs.mount_point / name) / "victim")
        run("sync", "-f", str(fs.mount_point))
        yield fs, found[0], found[1]


def fail_writes(
    fs: Scratch,
    *paths: Path,
    how: str = "kept",
    through: Path | None = None,
    prefix: Sequence[str] = (),
    names: Sequence[Path] = (),
) -> None:
    """One process after the other fails to write the data of each.

    ``how`` may be "unlinked". ``through`` is another folder in which the files show.
    ``names`` are looked up: up to 5.10 a device that shrinks
    makes the kernel forget those that it knew (``flush_disk()``).
    """
    for path in paths:
        with cut(fs, str(path)):
            used = through / path.name if through else path
            command = (sys.executable, "-c", _WRITE, how, str(used), *map(str, names))
            done = run_child(*prefix, *command, path=str(path))
            assert done.returncode == 7, done.stderr


def require_subvolumes(fstype: str, attached: AttachedProbes) -> None:
    """Skip where the probes cannot tell the subvolumes of btrfs apart."""
    if fstype == "btrfs" and "no type information" in attached.failed.get(Probe.BTRFS_ERROR, ""):
        skip("this kernel's btrfs has no type information: no place is known", expected=True)


def ino(path: str | Path) -> int:
    """Inode number."""
    return os.stat(path).st_ino


def deep(top: Path, levels: int) -> Path:
    """A directory ``levels`` below ``top``."""
    folder = top.joinpath(*[f"d{level}" for level in range(levels)])
    folder.mkdir(parents=True)
    return folder


@contextmanager
def container(*command: str) -> Iterator[int]:
    """A process in a mount namespace of its own, in which ``command`` was run."""
    script = '"$@" && echo ready && exec sleep 1000'
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()
