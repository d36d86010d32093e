"""Descriptors of another task: what they are, and copies of them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import suppress
from struct import Struct
from typing import NamedTuple

from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.libc import syscall
from fserr_bpf.kernel.syscalls import statx
from fserr_bpf.tasks.credentials import read_status
from fserr_bpf.tasks.looking import looking

_PIDFD_THREAD = os.O_EXCL  # since 6.9
_NR_KCMP, _NR_PIDFD_GETFD = 312, 438
# include/uapi/linux/kcmp.h
_KCMP_FILE, _KCMP_EPOLL_TFD = 0, 7
_F_DUPFD_QUERY = 1027
_EPOLL_SLOT = Struct("<III")  # struct kcmp_epoll_slot: efd, tfd, toff


class Copy(NamedTuple):
    """A descriptor of a task, with its flag close-on-exec."""

    number: int
    cloexec: bool


def same_file(tid: int, fd: int, ours: int) -> bool:
    """Whether a task's descriptor is a copy of ``ours``: of the same open file description.

    False as well where there is no such descriptor, or the kernel compares none: it has kcmp(2)
    with CONFIG_KCMP, F_DUPFD_QUERY since 6.10.
    """
    same = _kcmp(tid, os.getpid(), _KCMP_FILE, fd, ours)
    if same is not None:
        return same
    copy = None
    try:
        copy = copy_descriptor(tid, fd)
        return copy is not None and fcntl.fcntl(copy, _F_DUPFD_QUERY, ours) == 1
    except OSError:
        return False
    finally:
        if copy is not None:
            os.close(copy)


def same_in_epoll(tid: int, epoll: int, fd: int, place: int, ours: int) -> bool | None:
    """The same of what an epoll instance of the task knows as ``fd``; None without kcmp(2).

    There may be several that it knows so; ``place`` counts them.
    """
    slot = ctypes.create_string_buffer(_EPOLL_SLOT.pack(epoll, fd, place))
    return _kcmp(os.getpid(), tid, _KCMP_EPOLL_TFD, ours, slot)


def _kcmp(one: int, other: int, what: int, first: object, second: object) -> bool | None:
    """None where it is not there, or forbidden."""
    try:
        return syscall(_NR_KCMP, one, other, what, first, second) == 0
    except OSError as error:
        return None if error.errno in (errno.ENOSYS, errno.EPERM) else False


def copies(tid: int, ours: int) -> list[Copy]:
    """All descriptors of a task that are copies of ``ours``, see `same_file`.

    Raises ProcessLookupError when the task is gone.
    """
    found = []
    for fd in numbers(tid):
        if same_file(tid, fd, ours):
            with suppress(FileNotFoundError):  # closed meanwhile
                found.append(Copy(fd, _is_cloexec(tid, fd)))
    return found


def numbers(tid: int) -> list[int]:
    """Those of all descriptors of a task. Raises ProcessLookupError when the task is gone."""
    with looking("the descriptors"):
        directory = procfs.open_in(f"{tid}/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(map(int, os.listdir(directory)))
        finally:
            os.close(directory)


def _is_cloexec(tid: int, fd: int) -> bool:
    flags = procfs.read(f"{tid}/fdinfo/{fd}").partition(b"flags:")[2].split()[0]
    return bool(int(flags, 8) & os.O_CLOEXEC)


def descriptor_identity(tid: int, fd: int) -> tuple[int, int] | None:
    """(st_dev, st_ino) of a task's descriptor; None if there is none, or no such task.

    The file is not opened, and no file server is asked: one that keeps root out (FUSE without
    allow_other) has None too. Raises PrivilegeError if we may not look.
    """
    path = f"{tid}/fd/{fd}"
    try:
        return statx(path, procfs.directory())[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        with looking("the descriptors"):
            os.readlink(path, dir_fd=procfs.directory())
        return None


def copy_descriptor(tid: int, fd: int) -> int | None:
    """A descriptor, close-on-exec, of the open file that is the task's ``fd``; None if it has none.

    Before 6.9 it is one of the process's first thread, which nearly always has the same ones.
    Raises ProcessLookupError when the task is gone, PrivilegeError if we may not look.
    """
    try:
        pidfd = os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pidfd = os.pidfd_open(read_status(tid).tgids[0])
    try:
        with looking("the descriptors"):
            return syscall(_NR_PIDFD_GETFD, pidfd, fd, 0)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None
    finally:
        os.close(pidfd)
