"""File handles <-> inodes, for the handle types whose bytes are known."""

from __future__ import annotations

from typing import NamedTuple

from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.exportfs import (
    BTRFS_WITHOUT_PARENT,
    FILEID_BTRFS_WITHOUT_PARENT,
    FILEID_INO32_GEN,
    FILEID_INO64_GEN,
    INO32_GEN,
    INO64_GEN,
)


def encode_handle(
    form: int | None, ino: int, generation: int, subvolume: int = 0
) -> FileHandle | None:
    """Do what ``exportfs_encode_fid()`` does, from numbers instead of an inode.

    ``form`` is a FILEID_* type of `fserr_bpf.uapi.exportfs`, or None where the
    layout is not known; then there is no handle. ``ino`` and ``subvolume`` are
    unsigned 64 bit, ``generation`` unsigned 32 bit. ``subvolume`` is the objectid
    of the inode's btrfs root and ignored elsewhere.
    """
    if form == FILEID_INO32_GEN:
        # The kernel stores i_ino into a u32: larger numbers lose their top half.
        return FileHandle(form, INO32_GEN.pack(ino & 0xFFFFFFFF, generation))
    if form == FILEID_INO64_GEN:
        return FileHandle(form, INO64_GEN.pack(ino, generation))
    if form == FILEID_BTRFS_WITHOUT_PARENT:
        return FileHandle(form, BTRFS_WITHOUT_PARENT.pack(ino, subvolume, generation))
    return None


class HandleInode(NamedTuple):
    """The inode in a file handle; ``subvolume`` is 0 where there are none."""

    ino: int
    generation: int
    subvolume: int = 0


def inode_of(handle: FileHandle) -> HandleInode | None:
    """Return the inode of ``handle``, or None for a type or length not known here.

    Formulas: ``generic_encode_ino32_fh`` (ext4, f2fs), ``xfs_fs_encode_fh``,
    ``btrfs_encode_fh``.
    """
    match handle.handle_type, len(handle.f_handle):
        case (type_, INO32_GEN.size) if type_ == FILEID_INO32_GEN:
            return HandleInode(*INO32_GEN.unpack(handle.f_handle))
        case (type_, INO64_GEN.size) if type_ == FILEID_INO64_GEN:
            return HandleInode(*INO64_GEN.unpack(handle.f_handle))
        case (type_, BTRFS_WITHOUT_PARENT.size) if type_ == FILEID_BTRFS_WITHOUT_PARENT:
            ino, subvolume, generation = BTRFS_WITHOUT_PARENT.unpack(handle.f_handle)
            return HandleInode(ino, generation, subvolume)
        case _:
            return None
