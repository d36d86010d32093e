"""A fanotify group of the running kernel: the native emitter, and the judge of ours."""

from __future__ import annotations

import errno
import os

from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError, KernelError, MarkError, PrivilegeError
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.procfs import setting
from fserr_bpf.model.queue import MAX_QUEUED_EVENTS
from fserr_bpf.uapi.fanotify import (
    FAN_CLASS_NOTIF,
    FAN_CLOEXEC,
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_INODE,
    FAN_NONBLOCK,
    FAN_REPORT_FID,
)

# Cause and remedy of each refusal of fanotify_mark(2), see do_fanotify_mark(),
# fanotify_test_fsid() and fanotify_test_fid() in fs/notify/fanotify/fanotify_user.c.
_REFUSALS = {
    errno.EACCES: ("no permission to read it", "run as root"),
    errno.EINVAL: (
        "the kernel rejects the mask or the file system",
        "FAN_FS_ERROR needs Linux 5.16 or 5.10.220, and a file system that user space mounted",
    ),
    errno.ENODEV: (
        "the file system has no fsid",
        "mark one whose statfs(2) gives a non-zero f_fsid",
    ),
    errno.ENOENT: ("no such file or directory", "give a path on the file system to watch"),
    errno.ENOSPC: ("too many marks", "raise user.max_fanotify_marks"),
    errno.EOPNOTSUPP: (
        "the file system cannot encode file handles",
        "mark a file system that can be exported, such as ext4, xfs or btrfs",
    ),
    errno.EXDEV: (
        "the path is in a subvolume whose fsid is not that of the file system's root",
        "mount the top level with -o subvolid=5 and mark that",
    ),
}


def _init_error(error: OSError) -> FserrError:
    if error.errno == errno.EPERM:
        return PrivilegeError("fanotify_init: not permitted", "run as root (CAP_SYS_ADMIN)")
    if error.errno == errno.EMFILE:
        return KernelError(
            "fanotify_init: too many groups or open files",
            "raise user.max_fanotify_groups or the limit of open files",
        )
    if error.errno == errno.EINVAL:
        return KernelError(
            "fanotify_init: this kernel does not know the requested flags",
            "ask for fewer FAN_REPORT_* flags",
        )
    return KernelError(f"fanotify_init: {error.strerror}", "use a kernel with CONFIG_FANOTIFY")


def _mark_error(path: str, error: OSError) -> FserrError:
    if error.errno == errno.EPERM:
        return PrivilegeError(
            f"{path}: a file system mark is not permitted", "run as root (CAP_SYS_ADMIN)"
        )
    cause, remedy = _REFUSALS.get(
        error.errno or 0, (error.strerror or str(error), "give a path that can be resolved")
    )
    return MarkError(f"{path}: {cause}", remedy)


class FanotifyGroup(Closing):
    """A notification group whose events carry file handles (``fanotify(7)``).

    ``flags`` are added to CLASS_NOTIF | REPORT_FID | CLOEXEC | NONBLOCK. Raises
    PrivilegeError, or KernelError if the kernel has no such group.
    """

    def __init__(self, flags: int = 0) -> None:
        flags |= FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_CLOEXEC | FAN_NONBLOCK
        try:
            self._fd = syscalls.fanotify_init(flags)
        except OSError as error:
            raise _init_error(error) from error

    def close(self) -> None:
        """Destroy the group with its marks and unread events."""
        os.close(self._fd)

    def fileno(self) -> int:
        """The descriptor to poll for EPOLLIN."""
        return self._fd

    def mark(self, path: str, mask: int = FAN_FS_ERROR) -> None:
        """Ask for ``mask`` on the whole file system that ``path`` is on.

        Raises MarkError or PrivilegeError; the errno is in its ``__cause__``.
        """
        self._mark(path, mask, FAN_MARK_FILESYSTEM)

    def mark_inode(self, path: str, mask: int = FAN_FS_ERROR) -> None:
        """Ask for ``mask`` of ``path`` alone; no upstream kernel takes FAN_FS_ERROR there.

        Raises MarkError or PrivilegeError; the errno is in its ``__cause__``.
        """
        self._mark(path, mask, FAN_MARK_INODE)

    def _mark(self, path: str, mask: int, kind: int) -> None:
        try:
            syscalls.fanotify_mark(self._fd, FAN_MARK_ADD | kind, mask, path)
        except OSError as error:
            raise _mark_error(path, error) from error

    def read(self, size: int = 65536) -> bytes:
        """The next events that fit into ``size`` bytes, b"" when there are none.

        Raises OSError EINVAL when the first event is larger than ``size``.
        """
        try:
            return os.read(self._fd, size)
        except BlockingIOError:
            return b""


def max_queued_events(proc: int | None = None) -> int:
    """The length of a new group's queue, as ``fanotify_init(2)`` samples it.

    ``proc`` is a procfs, as a descriptor. sys/fs/fanotify exists since 5.13; before, the limit
    is constant.
    """
    try:
        return setting("fs/fanotify/max_queued_events", proc)
    except OSError:
        return MAX_QUEUED_EVENTS


def kernel_accepts_fs_error() -> bool:
    """Whether this kernel knows FAN_FS_ERROR in a file system mark.

    It may accept the mark and still never emit: until 7.0 only ext4 does.
    Raises PrivilegeError, or KernelError if there is no fanotify at all.
    """
    with FanotifyGroup() as group:
        try:
            # The mask is judged before the path, so no file system is involved.
            group.mark("")
        except MarkError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.EINVAL):
                return cause.errno == errno.ENOENT
            raise
    raise AssertionError("the kernel marked an empty path")
