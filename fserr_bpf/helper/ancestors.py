"""A file handle to the folders above its object, for the process that may wait for a disk.

Descriptors live for one look only. What cannot be checked is unknown.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from fserr_bpf.codec.handles import inode_of
from fserr_bpf.helper.handles import DELETED, leads_to, open_object
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.mounts import Mount, process_of, read_mounts, read_mounts_of
from fserr_bpf.marks.rules import Chain, Place
from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.inode import InodeId

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def place_of_handle(mount_point: str, dev: Dev, handle: FileHandle) -> Place | None:
    """Where the object of ``handle`` is now; None if the kernel knows no way to it.

    ``mount_point`` shows the file system of ``dev``, (major, minor) of its superblock. A
    deleted file is where it was deleted. Raises OSError for what the kernel refuses; needs
    CAP_DAC_READ_SEARCH.
    """
    found = open_object(mount_point, handle)
    try:
        status = os.fstat(found)
        mounts = {mount.mount_id: mount for mount in _table(mount_point) if mount.dev == dev}
        if stat.S_ISDIR(status.st_mode):
            return Place((_above(os.open("..", _FOLDER, dir_fd=found), found, mounts),), True)
        path = os.readlink(f"/proc/self/fd/{found}")
        if status.st_nlink == 0:
            if not path.endswith(DELETED):
                return None
            path = path.removesuffix(DELETED)
        elif not leads_to(path, handle, mounts):
            return None
        folder = os.open(os.path.dirname(path), _FOLDER)
        return Place((_above(folder, folder, mounts),), status.st_nlink <= 1)
    finally:
        os.close(found)


def _table(mount_point: str) -> Iterator[Mount]:
    yield from read_mounts()
    if process := process_of(mount_point):
        yield from read_mounts_of(process)


def _above(folder: int, below: int, mounts: dict[int, Mount]) -> Chain:
    """``folder`` and what is above it on the mount of ``below``; closes ``folder``."""
    ancestors: list[InodeId] = []
    mount = mounts.get(_mount_id(below))
    while True:
        try:
            if mount is None or _mount_id(folder) != mount.mount_id:
                break
            here = syscalls.name_to_handle_at(folder)
            inode = inode_of(FileHandle(here.handle_type, here.f_handle))
            if inode is None:
                return Chain(tuple(ancestors), False)
            number = inode.narrow
            if ancestors and ancestors[-1] == number:  # ".." of the root of all is itself
                break
            ancestors.append(number)
            upper = os.open("..", _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = upper
    return Chain(tuple(ancestors), mount is not None and mount.root == "/")


def _mount_id(descriptor: int) -> int:
    return syscalls.statx(f"/proc/self/fd/{descriptor}").mount_id
