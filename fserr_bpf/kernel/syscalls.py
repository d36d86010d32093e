"""System calls that Python's standard library lacks, of files and fanotify.

Every function raises OSError with the kernel's errno. Layouts are those of the
64-bit ABI that x86-64, arm64 and riscv64 share.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from fserr_bpf.kernel.libc import check, libc, syscall
from fserr_bpf.uapi.exportfs import MAX_HANDLE_SZ
from fserr_bpf.uapi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_STATX_DONT_SYNC,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
)

_NR_OPENAT2 = 437
_OPEN_HOW = struct.Struct("=QQQ")  # include/uapi/linux/openat2.h: flags, mode, resolve
_RESOLVE_NO_XDEV, _RESOLVE_NO_SYMLINKS = 0x01, 0x04
STATX_INO, STATX_MNT_ID = 0x100, 0x1000
# offsets in struct statx of include/uapi/linux/stat.h, and its size
STX_INO, STX_DEV, STX_MNT_ID, STX_SIZE = 32, 136, 144, 256


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


libc.fanotify_init.argtypes = (ctypes.c_uint, ctypes.c_uint)
libc.fanotify_init.restype = ctypes.c_int
libc.fanotify_mark.argtypes = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_char_p,
)
libc.fanotify_mark.restype = ctypes.c_int
libc.name_to_handle_at.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_FileHandle),
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_int,
)
libc.name_to_handle_at.restype = ctypes.c_int
libc.open_by_handle_at.argtypes = (ctypes.c_int, ctypes.POINTER(_FileHandle), ctypes.c_int)
libc.open_by_handle_at.restype = ctypes.c_int
libc.statfs.argtypes = (ctypes.c_char_p, ctypes.POINTER(_Statfs))
libc.statfs.restype = ctypes.c_int
libc.fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_Statfs))
libc.fstatfs.restype = ctypes.c_int
libc.statx.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_char_p,
)
libc.statx.restype = ctypes.c_int


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
    """The part of ``struct statx`` that says which file it is, and where.

    ``st_dev``, ``st_ino``, and the mount's id in ``/proc/self/mountinfo`` (Linux 5.8).
    """

    dev: int
    ino: int
    mount_id: int


def fanotify_init(flags: int, event_f_flags: int = os.O_RDONLY) -> int:
    """Create a notification group and return its descriptor (``fanotify_init(2)``)."""
    return check(libc.fanotify_init(flags, event_f_flags))


def fanotify_mark(
    group: int, flags: int, mask: int, path: str | bytes | None, dirfd: int = AT_FDCWD
) -> None:
    """Change a mark of ``group`` on ``path``, or without one on what ``dirfd`` is."""
    name = None if path is None else os.fsencode(path)
    shown = None if path is None else os.fsdecode(path)
    check(libc.fanotify_mark(group, flags, mask, dirfd, name), shown)


def open_below(directory: int, path: str, flags: int) -> int:
    """A descriptor, close-on-exec, of ``path`` on the same mount as ``directory``.

    Neither a symbolic link nor something that was mounted over a part of it is followed.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS)
    return syscall(_NR_OPENAT2, directory, os.fsencode(path), how, len(how))


def open_by_handle_at(mount: int, handle_type: int, f_handle: bytes) -> int:
    """An O_PATH descriptor of the object, on the file system of the descriptor ``mount``."""
    handle = _FileHandle(handle_bytes=len(f_handle), handle_type=handle_type)
    ctypes.memmove(handle.f_handle, f_handle, len(f_handle))
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    return check(libc.open_by_handle_at(mount, ctypes.byref(handle), flags))


def name_to_handle_at(path: str | int, *, follow: bool = True) -> NameToHandle:
    """The file handle of ``path`` (``name_to_handle_at(2)``); ``follow`` symbolic links.

    Of a descriptor, also one of O_PATH, if ``path`` is a number.
    """
    handle = _FileHandle(handle_bytes=MAX_HANDLE_SZ)
    mount_id = ctypes.c_int()
    place = ctypes.byref(handle), ctypes.byref(mount_id)
    if isinstance(path, int):
        check(libc.name_to_handle_at(path, b"", *place, AT_EMPTY_PATH))
    else:
        flags = AT_SYMLINK_FOLLOW if follow else 0
        check(libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), *place, flags), path)
    return NameToHandle(
        handle.handle_type, bytes(handle.f_handle[: handle.handle_bytes]), mount_id.value
    )


def statfs(path: str | int) -> Statfs:
    """Magic number and fsid (two unsigned 32-bit words) of the file system of ``path``.

    Or of a descriptor, also one of O_PATH.
    """
    buffer = _Statfs()
    if isinstance(path, int):
        check(libc.fstatfs(path, ctypes.byref(buffer)))
    else:
        check(libc.statfs(os.fsencode(path), ctypes.byref(buffer)), path)
    return Statfs(buffer.f_type, (buffer.f_fsid[0], buffer.f_fsid[1]))


def statx(path: str | bytes | None, dirfd: int = AT_FDCWD, *, follow: bool = True) -> Statx:
    """Of ``path``, or where that is None of the descriptor ``dirfd``; ``follow`` symbolic links.

    What the kernel has of it: no file server is asked, which may not answer, or be our client.
    """
    buffer = ctypes.create_string_buffer(STX_SIZE)
    flags = AT_STATX_DONT_SYNC | (0 if follow else AT_SYMLINK_NOFOLLOW)
    if path is None:
        flags |= AT_EMPTY_PATH
    name = os.fsencode(path or b"")
    check(
        libc.statx(dirfd, name, flags, STATX_INO | STATX_MNT_ID, buffer),
        None if path is None else os.fsdecode(path),
    )
    (ino,) = struct.unpack_from("=Q", buffer, STX_INO)
    major, minor = struct.unpack_from("=II", buffer, STX_DEV)
    (mount_id,) = struct.unpack_from("=Q", buffer, STX_MNT_ID)
    return Statx(os.makedev(major, minor), ino, mount_id)
