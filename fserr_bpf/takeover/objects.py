"""What a client's mark is on, looked at with the client's eyes: in its namespaces and rights."""

from __future__ import annotations

import os
from typing import NamedTuple

from fserr_bpf.codec.handles import HandleInode, inode_of
from fserr_bpf.live import syscalls
from fserr_bpf.live.handles import form_of
from fserr_bpf.model.event import FileHandle, Fsid
from fserr_bpf.uapi.fanotify import FAN_MARK_DONT_FOLLOW


class Marked(NamedTuple):
    """``form`` is the type of the file system's handles, None if their layout is not known.

    ``inode`` is None where the handle says nothing of it.
    """

    fsid: Fsid
    form: int | None
    inode: HandleInode | None


def look_at(lookup: int, dirfd: int, path: bytes | None) -> Marked:
    """The object of ``fanotify_mark(2)``; OSError if it is out of reach.

    ``lookup`` is FAN_MARK_DONT_FOLLOW, FAN_MARK_ONLYDIR or 0.

    The descriptor that this takes is closed again: the file system can be unmounted.
    """
    if path is None:
        return _look(dirfd)
    nofollow = os.O_NOFOLLOW if lookup & FAN_MARK_DONT_FOLLOW else 0
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | nofollow, dir_fd=dirfd)
    try:
        return _look(descriptor)
    finally:
        os.close(descriptor)


def _look(descriptor: int) -> Marked:
    fsid = Fsid(*syscalls.statfs(descriptor).f_fsid)
    handle = syscalls.name_to_handle_at(descriptor)
    form = form_of(handle, os.fstat(descriptor).st_ino)
    known = FileHandle(handle.handle_type, handle.f_handle) if form is not None else None
    return Marked(fsid, form, inode_of(known) if known else None)
