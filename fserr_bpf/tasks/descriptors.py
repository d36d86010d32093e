"""Descriptors of another task: what they are, and copies of them."""

from __future__ import annotations

import errno
import os

from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.libc import syscall
from fserr_bpf.kernel.syscalls import statx
from fserr_bpf.tasks.credentials import read_status
from fserr_bpf.tasks.looking import looking

_PIDFD_THREAD = os.O_EXCL  # since 6.9
_NR_PIDFD_GETFD = 438


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
