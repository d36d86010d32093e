"""What a fault is, and what the causes and damages of every file system share."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fserr_bpf.errors import LabError
from fserr_bpf_compare.faults.scratch import Scratch
from fserr_bpf_compare.signals_blocked import signals_blocked

Form = Literal["inode", "sb"]

EFSCORRUPTED = errno.EUCLEAN
EFSBADCRC = errno.EBADMSG


@dataclass(frozen=True)
class Expected:
    """One error that has to be reported, in the 7.0 kernel's positive numbers."""

    error: int
    form: Form


@dataclass(frozen=True)
class TriggerProcess:
    """The process that met the error; ``path`` is the object of an inode error."""

    pid: int
    comm: str
    command: tuple[str, ...]
    returncode: int
    stderr: str
    path: str


@dataclass(frozen=True)
class Fault:
    """A way to break a file system.

    ``log`` is a regular expression for what the kernel logs, ``{dev}`` for the device's name.
    ``expected`` holds each distinct error once; the kernel may report it several
    times. ``proposed`` is the same for the stream of that name, None where it does not
    differ; ``unpatched`` are those of it that the series of ``kernel-patch/`` does not
    send yet. ``native_since`` is the first kernel that reports it through fanotify
    itself (stable kernels may have it backported), None if no kernel does.
    ``handle_reachable`` says that the failing inode can still be opened by name,
    so that name_to_handle_at(2) can judge the handle. ``damage`` needs a file system
    made with ``mkfs_options``.
    """

    name: str
    fstype: str
    summary: str
    log: str
    expected: tuple[Expected, ...]
    native_since: tuple[int, int] | None
    damage: Callable[[Scratch], None]
    cause: Callable[[Scratch], TriggerProcess]
    mkfs_options: tuple[str, ...] = ()
    proposed: tuple[Expected, ...] | None = None
    unpatched: tuple[Expected, ...] = ()
    handle_reachable: bool = False

    def prepare(self, fs: Scratch) -> None:
        """Make ``fs``, which is mounted and will be again, as this fault needs it."""
        if self.mkfs_options:
            fs.unmount()
            fs.make(*self.mkfs_options)
            fs.mount()
        self.damage(fs)

    def expected_of_proposed(self) -> tuple[Expected, ...]:
        """Each distinct error in the stream ``proposed``."""
        return self.expected if self.proposed is None else self.proposed

    def expected_of_patched(self) -> tuple[Expected, ...]:
        """Each distinct error that a kernel with our patches sends."""
        return tuple(e for e in self.expected_of_proposed() if e not in self.unpatched)


def run_child(*command: str, path: str) -> TriggerProcess:
    """Run ``command`` to its end; ``path`` is what its errors are about."""
    child = None
    try:
        with signals_blocked():
            child = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        _, stderr = child.communicate()
    except BaseException:  # nothing may use the file system any more
        if child is not None:
            child.kill()
            child.communicate()
        raise
    comm = os.path.basename(command[0])[:15]
    return TriggerProcess(child.pid, comm, command, child.returncode, stderr, path)


def in_mount(name: str, *command: str) -> Callable[[Scratch], TriggerProcess]:
    """A cause: ``command`` with the path of ``name`` as its last argument."""

    def cause(fs: Scratch) -> TriggerProcess:
        path = str(fs.mount_point / name)
        return run_child(*command, path, path=path)

    return cause


def number_in(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise LabError(f"a debugging tool printed something unexpected: {text.strip()!r}")
    return int(found[1])


def write_file(fs: Scratch, name: str) -> int:
    """Create a file with data on the disk and return its inode number."""
    path = fs.mount_point / name
    path.write_bytes(b"fserr-bpf scratch data\n" * 8)
    return path.stat().st_ino


def fill_directory(fs: Scratch, files: int) -> int:
    """Create ``dir`` with so many files in it and return its inode number."""
    directory = fs.mount_point / "dir"
    directory.mkdir()
    for index in range(files):
        (directory / f"a file with a rather long name {index}").touch()
    return directory.stat().st_ino


def nothing(fs: Scratch) -> None:
    """The healthy file system will do."""
