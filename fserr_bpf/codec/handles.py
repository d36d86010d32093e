"""File handles <-> inodes, for the handle types whose bytes are known."""

from __future__ import annotations

from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.exportfs import (
    BTRFS_WITHOUT_PARENT,
    FILEID_BTRFS_WITHOUT_PARENT,
    FILEID_INO32_GEN,
    FILEID_INO64_GEN,
    INO32_GEN,
    INO64_GEN,
)
from fserr_bpf.uapi.inode import InodeId


def encode_handle(form: int | None, inode: InodeId) -> FileHandle | None:
    """Do what ``exportfs_encode_fid()`` does, from numbers instead of an inode.

    ``form`` is a FILEID_* type of `fserr_bpf.uapi.exportfs`, or None where the
    layout is not known; then there is no handle.
    """
    ino, generation, subvolume = inode
    if form == FILEID_INO32_GEN:
        # The kernel stores i_ino into a u32: larger numbers lose their top half.
        return FileHandle(form, INO32_GEN.pack(ino & 0xFFFFFFFF, generation))
    if form == FILEID_INO64_GEN:
        return FileHandle(form, INO64_GEN.pack(ino, generation))
    if form == FILEID_BTRFS_WITHOUT_PARENT:
        return FileHandle(form, BTRFS_WITHOUT_PARENT.pack(ino, subvolume, generation))
    return None


def inode_of(handle: FileHandle) -> InodeId | None:
    """Return the inode of ``handle``, or None for a type or length not known here.

    Formulas: ``generic_encode_ino32_fh`` (ext4, f2fs), ``xfs_fs_encode_fh``,
    ``btrfs_encode_fh``.
    """
    match handle.handle_type, len(handle.f_handle):
        case (type_, INO32_GEN.size) if type_ == FILEID_INO32_GEN:
            return InodeId(*INO32_GEN.unpack(handle.f_handle))
        case (type_, INO64_GEN.size) if type_ == FILEID_INO64_GEN:
            return InodeId(*INO64_GEN.unpack(handle.f_handle))
        case (type_, BTRFS_WITHOUT_PARENT.size) if type_ == FILEID_BTRFS_WITHOUT_PARENT:
            ino, subvolume, generation = BTRFS_WITHOUT_PARENT.unpack(handle.f_handle)
            return InodeId(ino, generation, subvolume)
        case _:
            return None
