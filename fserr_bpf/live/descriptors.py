"""Descriptors of another task: what they are, and copies of them."""

from __future__ import annotations

import ctypes
import errno
import os

from fserr_bpf.live.attributes import known_attributes
from fserr_bpf.live.credentials import read_status

_PIDFD_THREAD = os.O_EXCL  # since 6.9
_NR_PIDFD_GETFD = 438

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def descriptor_identity(tid: int, fd: int) -> tuple[int, int] | None:
    """(st_dev, st_ino) of a task's descriptor; None if there is none, or no such task.

    The file is not opened, and no file server is asked.
    """
    try:
        return known_attributes(f"/proc/{tid}/fd/{fd}")[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None


def copy_descriptor(tid: int, fd: int) -> int | None:
    """A descriptor, close-on-exec, of the open file that is the task's ``fd``; None if it has none.

    Before 6.9 it is one of the process's first thread, which nearly always has the same ones.
    Raises ProcessLookupError when the task is gone.
    """
    try:
        pidfd = os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pidfd = os.pidfd_open(read_status(tid).tgids[0])
    try:
        return _pidfd_getfd(pidfd, fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None
    finally:
        os.close(pidfd)


def _pidfd_getfd(pidfd: int, fd: int) -> int:
    number = ctypes.c_long(_NR_PIDFD_GETFD)
    result: int = _libc.syscall(number, ctypes.c_int(pidfd), ctypes.c_int(fd), ctypes.c_uint(0))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
