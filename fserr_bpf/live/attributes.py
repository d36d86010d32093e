"""Which file something is, by what the kernel has of it: nobody is asked, nobody waits.

A stat(2) of a client's file could hang on a network or FUSE server that does not answer,
which may be the client itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x100, 0x1000, 0x4000
_STATX_INO, _STATX_MNT_ID = 0x100, 0x1000
# struct statx of include/uapi/linux/stat.h
_SIZE, _INO_AT, _DEVICE_AT, _MOUNT_ID_AT = 256, 32, 136, 144

_libc = ctypes.CDLL(None, use_errno=True)
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_libc.statx.restype = ctypes.c_int


class Known(NamedTuple):
    """``st_dev``, ``st_ino`` and the mount's id in mountinfo."""

    device: int
    inode: int
    mount_id: int


def known_attributes(
    path: str | bytes | None, directory: int = _AT_FDCWD, *, follow: bool = True
) -> Known:
    """Of the file that ``path`` leads to, or of the descriptor ``directory``. Raises OSError."""
    buffer = ctypes.create_string_buffer(_SIZE)
    wanted = _STATX_INO | _STATX_MNT_ID
    flags = _AT_STATX_DONT_SYNC | (0 if follow else _AT_SYMLINK_NOFOLLOW)
    if path is None:
        flags |= _AT_EMPTY_PATH
    name = os.fsencode(path or b"")
    if _libc.statx(directory, name, flags, wanted, buffer):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(name))
    (inode,) = struct.unpack_from("=Q", buffer, _INO_AT)
    major, minor = struct.unpack_from("=II", buffer, _DEVICE_AT)
    (mount_id,) = struct.unpack_from("=Q", buffer, _MOUNT_ID_AT)
    return Known(os.makedev(major, minor), inode, mount_id)
