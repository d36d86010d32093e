"""File handles to paths, without opening the file for data.

Each answer is checked: the handle of the path must be the handle that was asked for. What
cannot be checked is unknown.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from typing import NamedTuple

from fserr_bpf.helper.handles import DELETED, leads_to, open_object
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.mounts import MountTable, process_of, read_mounts, read_mounts_of
from fserr_bpf.model.event import FileHandle, PathState
from fserr_bpf.uapi.dev import Dev

_SEARCH_SECONDS = 3.0


class Path(NamedTuple):
    """``path`` is absolute; "" unless ``state`` is EXACT or SEVERAL."""

    path: str
    state: PathState


def path_of(mount_point: str, dev: Dev, handle: FileHandle, name: str) -> Path:
    """Where the object of ``handle`` is now, on the file system mounted at ``mount_point``.

    ``name`` is what the probe saw, relative to the file system's root, or "". With it no
    privilege is needed; without it CAP_DAC_READ_SEARCH. Raises OSError for what the
    kernel refuses otherwise.
    """
    process = process_of(mount_point)
    table = (*read_mounts(), *(read_mounts_of(process) if process else ()))
    if name and (guess := _below(mount_point, dev, name, table)) and _is(guess, dev, handle, table):
        return _known(guess)
    try:
        found = open_object(mount_point, handle)
    except OSError as error:
        if error.errno == errno.ESTALE:
            return Path("", PathState.STALE)
        raise
    try:
        path = os.readlink(f"/proc/self/fd/{found}")
        gone = not os.fstat(found).st_nlink or path.endswith(DELETED)
    finally:
        os.close(found)
    if process:  # it is the path in that process's namespace
        path = f"/proc/{process}/root{path}"
    if _is(path, dev, handle, table):
        return _known(path)
    # a file that nobody has looked up by name: the kernel knows no way to it
    return Path("", PathState.STALE if gone else PathState.UNKNOWN)


def search(tops: Iterable[str], dev: Dev, handle: FileHandle, ino: int) -> Path:
    """Look for the object of ``handle``, which has this inode number, in and below folders.

    Their mounts are not left, links not followed, and it ends after a few seconds. For a
    file whose names the kernel has forgotten.
    """
    end = time.monotonic() + _SEARCH_SECONDS
    table = read_mounts()
    folders = list(tops)
    while folders and time.monotonic() < end:
        folder = folders.pop()
        try:
            mount = syscalls.statx(folder).mount_id
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.inode() == ino and _is(entry.path, dev, handle, table):
                        return _known(entry.path)
                    if (
                        entry.is_dir(follow_symlinks=False)
                        and syscalls.statx(entry.path).mount_id == mount
                    ):
                        folders.append(entry.path)
        except OSError:  # gone, or not ours to read: the file is not known to be there
            continue
    return Path("", PathState.UNKNOWN)


def _known(path: str) -> Path:
    status = os.stat(path, follow_symlinks=False)
    several = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
    return Path(path, PathState.SEVERAL if several else PathState.EXACT)


def _below(mount_point: str, dev: Dev, name: str, table: MountTable) -> str:
    """``name`` of the file system as a path below ``mount_point``; "" if it is not there."""
    roots = [m.root for m in table if (m.mount_point, m.dev) == (mount_point, dev)]
    if not roots:
        return ""
    path, root = f"/{name}", roots[-1].rstrip("/")
    if not path.startswith(f"{root}/"):
        return ""
    return os.path.join(mount_point, path[len(root) + 1 :])


def _is(path: str, dev: Dev, handle: FileHandle, table: MountTable) -> bool:
    """Whether ``path`` leads to the object of ``handle`` on the file system of ``dev``."""
    return leads_to(path, handle, {m.mount_id for m in table if m.dev == dev})
