"""cgroup ids to paths. The id of a cgroup is the inode number of its directory."""

from __future__ import annotations

import os

from fserr_bpf.live.mounts import read_mounts

_HIERARCHY = "cgroup2"


def cgroup_path(cgroup_id: int) -> str:
    """Path of a cgroup in the unified hierarchy, "/" for its root, "" if there is none.

    Needs no privilege. A cgroup that has gone has no path any more.
    """
    for mount in read_mounts():
        if mount.fstype == _HIERARCHY:
            found = _find(mount.mount_point, cgroup_id)
            return os.path.join(mount.root, found) if found is not None else ""
    return ""


def tracks_writeback() -> bool:
    """Whether inodes belong to the cgroup that writes them (``inode_cgwb_enabled()``).

    It takes the controllers memory and io in the unified hierarchy; else all is the root's.
    """
    for mount in read_mounts():
        if mount.fstype == _HIERARCHY:
            with open(os.path.join(mount.mount_point, "cgroup.controllers")) as file:
                return {"memory", "io"} <= set(file.read().split())
    return False


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
