"""System calls that Python's standard library lacks, of files and fanotify.

Every function raises OSError with the kernel's errno. Layouts are those of the
64-bit ABI that x86-64, arm64 and riscv64 share.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from fserr_bpf.uapi.exportfs import MAX_HANDLE_SZ

_AT_FDCWD = -100
_AT_SYMLINK_FOLLOW = 0x400
_AT_EMPTY_PATH = 0x1000
_STATX_INO = 0x100
_STATX_MNT_ID = 0x1000

_libc = ctypes.CDLL(None, use_errno=True)


class _Statfs(ctypes.Structure):
    """``struct statfs`` of ``include/uapi/asm-generic/statfs.h``."""

    _fields_ = [
        ("f_type", ctypes.c_long),
        ("f_bsize", ctypes.c_long),
        ("f_blocks", ctypes.c_ulong),
        ("f_bfree", ctypes.c_ulong),
        ("f_bavail", ctypes.c_ulong),
        ("f_files", ctypes.c_ulong),
        ("f_ffree", ctypes.c_ulong),
        ("f_fsid", ctypes.c_uint32 * 2),
        ("f_namelen", ctypes.c_long),
        ("f_frsize", ctypes.c_long),
        ("f_flags", ctypes.c_long),
        ("f_spare", ctypes.c_long * 4),
    ]


class _FileHandle(ctypes.Structure):
    """``struct file_handle`` with room for the largest handle."""

    _fields_ = [
        ("handle_bytes", ctypes.c_uint32),
        ("handle_type", ctypes.c_int32),
        ("f_handle", ctypes.c_ubyte * MAX_HANDLE_SZ),
    ]


_libc.fanotify_init.argtypes = (ctypes.c_uint, ctypes.c_uint)
_libc.fanotify_init.restype = ctypes.c_int
_libc.fanotify_mark.argtypes = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_char_p,
)
_libc.fanotify_mark.restype = ctypes.c_int
_libc.name_to_handle_at.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_FileHandle),
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_int,
)
_libc.name_to_handle_at.restype = ctypes.c_int
_libc.open_by_handle_at.argtypes = (ctypes.c_int, ctypes.POINTER(_FileHandle), ctypes.c_int)
_libc.open_by_handle_at.restype = ctypes.c_int
_libc.statfs.argtypes = (ctypes.c_char_p, ctypes.POINTER(_Statfs))
_libc.statfs.restype = ctypes.c_int
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_Statfs))
_libc.fstatfs.restype = ctypes.c_int
_libc.statx.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_char_p,
)
_libc.statx.restype = ctypes.c_int


class NameToHandle(NamedTuple):
    """What ``name_to_handle_at(2)`` returns for one path."""

    handle_type: int
    f_handle: bytes
    mount_id: int


class Statfs(NamedTuple):
    """The part of ``struct statfs`` that identifies a file system."""

    f_type: int
    f_fsid: tuple[int, int]


class Statx(NamedTuple):
    """The part of ``struct statx`` that says where a path lives."""

    ino: int
    mount_id: int


def _check(result: int, path: str | None = None) -> int:
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return result


def fanotify_init(flags: int, event_f_flags: int = os.O_RDONLY) -> int:
    """Create a notification group and return its descriptor (``fanotify_init(2)``)."""
    return _check(_libc.fanotify_init(flags, event_f_flags))


def fanotify_mark(
    group: int, flags: int, mask: int, path: str | bytes | None, dirfd: int = _AT_FDCWD
) -> None:
    """Change a mark of ``group`` on ``path``, or without one on what ``dirfd`` is."""
    name = None if path is None else os.fsencode(path)
    told = None if path is None else os.fsdecode(path)
    _check(_libc.fanotify_mark(group, flags, mask, dirfd, name), told)


def open_by_handle_at(mount: int, handle_type: int, f_handle: bytes) -> int:
    """An O_PATH descriptor of the object, on the file system of the descriptor ``mount``."""
    handle = _FileHandle(handle_bytes=len(f_handle), handle_type=handle_type)
    ctypes.memmove(handle.f_handle, f_handle, len(f_handle))
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    return _check(_libc.open_by_handle_at(mount, ctypes.byref(handle), flags))


def name_to_handle_at(path: str | int, *, follow: bool = True) -> NameToHandle:
    """The file handle of ``path`` (``name_to_handle_at(2)``); ``follow`` symbolic links.

    Of a descriptor, also one of O_PATH, if ``path`` is a number.
    """
    handle = _FileHandle(handle_bytes=MAX_HANDLE_SZ)
    mount_id = ctypes.c_int()
    place = ctypes.byref(handle), ctypes.byref(mount_id)
    if isinstance(path, int):
        _check(_libc.name_to_handle_at(path, b"", *place, _AT_EMPTY_PATH))
    else:
        flags = _AT_SYMLINK_FOLLOW if follow else 0
        _check(_libc.name_to_handle_at(_AT_FDCWD, os.fsencode(path), *place, flags), path)
    return NameToHandle(
        handle.handle_type, bytes(handle.f_handle[: handle.handle_bytes]), mount_id.value
    )


def statfs(path: str | int) -> Statfs:
    """Magic number and fsid (two unsigned 32-bit words) of the file system of ``path``.

    Or of a descriptor, also one of O_PATH.
    """
    buffer = _Statfs()
    if isinstance(path, int):
        _check(_libc.fstatfs(path, ctypes.byref(buffer)))
    else:
        _check(_libc.statfs(os.fsencode(path), ctypes.byref(buffer)), path)
    return Statfs(buffer.f_type, (buffer.f_fsid[0], buffer.f_fsid[1]))


def statx(path: str) -> Statx:
    """Inode number and mount id of ``path``, symbolic links followed.

    The mount id is the one of ``/proc/self/mountinfo`` (STATX_MNT_ID, Linux 5.8).
    """
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_INO | _STATX_MNT_ID, buffer), path)
    (ino,) = struct.unpack_from("=Q", buffer, 32)
    (mount_id,) = struct.unpack_from("=Q", buffer, 144)
    return Statx(ino, mount_id)
