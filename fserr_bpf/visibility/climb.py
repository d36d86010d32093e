"""A file handle to the folders above its object, for the process that may wait for a disk.

Descriptors live for one look only. What cannot be checked is not told.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from fserr_bpf.codec.handles import inode_of
from fserr_bpf.live import syscalls
from fserr_bpf.live.mounts import Mount, process_of, read_mounts, read_mounts_of
from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.side import Ancestor
from fserr_bpf.visibility.rules import Chain, Place, number_of

_DELETED = " (deleted)"
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def place_of_handle(mount_point: str, dev: tuple[int, int], handle: FileHandle) -> Place | None:
    """Where the object of ``handle`` is now; None if the kernel knows no way to it.

    ``mount_point`` shows the file system of ``dev``, (major, minor) of its superblock. A
    deleted file is where it was deleted. Raises OSError for what the kernel refuses; needs
    CAP_DAC_READ_SEARCH.
    """
    # a directory, not O_PATH: open_by_handle_at(2) does not take that
    root = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = syscalls.open_by_handle_at(root, handle.handle_type, handle.f_handle)
    finally:
        os.close(root)
    try:
        status = os.fstat(found)
        mounts = {mount.mount_id: mount for mount in _table(mount_point) if mount.dev == dev}
        if stat.S_ISDIR(status.st_mode):
            return Place((_above(os.open("..", _FOLDER, dir_fd=found), found, mounts),), True)
        path = os.readlink(f"/proc/self/fd/{found}")
        if status.st_nlink == 0:
            if not path.endswith(_DELETED):
                return None
            path = path.removesuffix(_DELETED)
        elif not _is(path, handle, mounts):
            return None
        folder = os.open(os.path.dirname(path), _FOLDER)
        return Place((_above(folder, folder, mounts),), status.st_nlink <= 1)
    finally:
        os.close(found)


def _table(mount_point: str) -> Iterator[Mount]:
    yield from read_mounts()
    if process := process_of(mount_point):
        yield from read_mounts_of(process)


def _is(path: str, handle: FileHandle, mounts: dict[int, Mount]) -> bool:
    try:
        found = syscalls.name_to_handle_at(path, follow=False)
    except OSError:  # renamed, unlinked, or hidden by another mount
        return False
    return found.mount_id in mounts and (found.handle_type, found.f_handle) == handle


def _above(folder: int, below: int, mounts: dict[int, Mount]) -> Chain:
    """``folder`` and what is above it on the mount of ``below``; closes ``folder``."""
    ancestors: list[Ancestor] = []
    mount = mounts.get(_mount_id(below))
    while True:
        try:
            if mount is None or _mount_id(folder) != mount.mount_id:
                break
            here = syscalls.name_to_handle_at(folder)
            inode = inode_of(FileHandle(here.handle_type, here.f_handle))
            if inode is None:
                return Chain(tuple(ancestors), False)
            number = number_of(inode)
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
