"""A procfs that can be trusted: of our own pid namespace, out of everybody's reach.

Who may mount can put anything in the place of ``/proc`` or over a file in it, and who was
started in a pid namespace of its own may find another one's there. A mount of our own that
is nowhere in the tree of paths has neither.
"""

from __future__ import annotations

import fcntl
import os
from functools import cache

from fserr_bpf.errors import KernelError
from fserr_bpf.kernel.detachedmounts import mount_detached
from fserr_bpf.kernel.syscalls import statfs

PROC_SUPER_MAGIC = 0x9FA0
"""f_type of every procfs and of nothing else, ``include/uapi/linux/magic.h``."""

_PATH = "/proc"
_PIECE = 1 << 14


@cache
def directory() -> int:
    """Its root: a descriptor, kept from the first call on.

    Raises KernelError where we may not mount and ``/proc`` is no procfs, or that of another
    pid namespace.
    """
    try:
        root = mount_detached("proc", {})
    except OSError:
        root = _open_mounted()
    # not one of the standard streams, should these be closed
    root, low = fcntl.fcntl(root, fcntl.F_DUPFD_CLOEXEC, 3), root
    os.close(low)
    own = _pids_of_own_status(root)
    if len(own) != 1 or own[0] != os.getpid():
        os.close(root)
        raise KernelError(
            f"{_PATH} is not the procfs of this pid namespace",
            f"mount one there: unshare --mount-proc, or mount -t proc proc {_PATH}",
        )
    return root


def open_in(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor, close-on-exec, of ``path``, which is relative to its root. Raises OSError."""
    return os.open(path, flags | os.O_CLOEXEC, dir_fd=directory())


def read(path: str) -> bytes:
    """The whole of a file. Raises OSError, also ProcessLookupError for a task that ends."""
    return _read(directory(), path)


def setting(name: str, directory: int | None) -> int:
    """The number in ``sys/NAME`` of the procfs ``directory``, or of ``/proc``. Raises OSError."""
    path = f"sys/{name}" if directory is not None else f"{_PATH}/sys/{name}"
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)) as file:
        return int(file.read())


def _read(root: int, path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    try:
        text = os.read(descriptor, _PIECE)
        while piece := os.read(descriptor, _PIECE):
            text += piece
        return text
    finally:
        os.close(descriptor)


def _open_mounted() -> int:
    missing = KernelError(f"{_PATH} is no procfs", f"mount one there: mount -t proc proc {_PATH}")
    try:
        root = os.open(_PATH, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise missing from error
    if statfs(root).f_type != PROC_SUPER_MAGIC:
        os.close(root)
        raise missing
    return root


def _pids_of_own_status(root: int) -> list[int]:
    """Our numbers, from that of its pid namespace to that of our own; none if not visible there."""
    try:
        status = _read(root, "self/status")
    except OSError:
        return []
    return [int(pid) for pid in status.partition(b"\nNSpid:")[2].partition(b"\n")[0].split()]
