"""cgroup ids to paths. The id of a cgroup is the inode number of its directory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fserr_bpf.kernel.mounts import Mount, read_mounts

ROOT_ID = 1
"""Of the root of the hierarchy: KERNFS root, fs/kernfs/dir.c."""


def hierarchies() -> Iterator[Mount]:
    """Where the unified hierarchy (cgroup2) is mounted."""
    return (mount for mount in read_mounts() if mount.fstype == "cgroup2")


def owns_writeback(folder: str) -> bool:
    """Whether the cgroup of ``folder`` has the controllers by which pages are its own.

    ``inode_cgwb_enabled()``; without memory and io what it writes is that of one above.
    """
    with open(os.path.join(folder, "cgroup.controllers")) as file:
        return {"memory", "io"} <= set(file.read().split())


def cgroup_path(cgroup_id: int) -> str:
    """Path of a cgroup in the unified hierarchy, "/" for its root, "" if there is none.

    Needs no privilege. A cgroup that has gone has no path any more.
    """
    for mount in hierarchies():
        found = _find(mount.mount_point, cgroup_id)
        return os.path.join(mount.root, found) if found is not None else ""
    return ""


def tracks_writeback() -> bool:
    """Whether inodes belong to the cgroup that writes them; else all is the root's."""
    first = next(hierarchies(), None)
    return first is not None and owns_writeback(first.mount_point)


def _find(top: str, cgroup_id: int) -> str | None:
    """The folder below ``top`` with this inode number, relative to it; its own is ""."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            if os.stat(os.path.join(top, folder)).st_ino == cgroup_id:
                return folder
            with os.scandir(os.path.join(top, folder)) as entries:
                folders += [
                    os.path.join(folder, entry.name)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except FileNotFoundError:  # cgroups come and go
            continue
    return None
