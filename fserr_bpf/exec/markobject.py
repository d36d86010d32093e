"""What is done with the client's rights, in its namespaces: mark what its path leads to, and look.

It is done in a process of its own, a worker: memory and paths of a client may be withheld
for ever, by a file server or with userfaultfd(2), and then only the caller waits.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from fserr_bpf.children.channel import Channel
from fserr_bpf.codec.handles import inode_of
from fserr_bpf.errors import FserrError, KernelError
from fserr_bpf.exec.markrequest import MarkAnswer, MarkedObject, MarkJob
from fserr_bpf.exec.shadow import HOLD, superblocks_of
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.syscalls import statx
from fserr_bpf.model.event import FileHandle, Fsid
from fserr_bpf.tasks.client import Client
from fserr_bpf.tasks.memory import text_at
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.fanotify import (
    FAN_CLOEXEC,
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_DONT_FOLLOW,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_FLUSH,
    FAN_REPORT_FID,
)
from fserr_bpf.uapi.fcntl import AT_FDCWD
from fserr_bpf.uapi.inode import InodeId

# f_type of file systems whose files all have s_dev as st_dev (generic_fillattr())
_PLAIN = frozenset({0xEF53, 0x58465342})  # ext2 to ext4, XFS: include/uapi/linux/magic.h


class _Seen(NamedTuple):
    """Of the object, as in `MarkedObject`; ``dev`` is None where it has to be located."""

    dev: Dev | None
    fsid: Fsid
    form: int | None
    inode: InodeId | None


class _MayBeOurs(NamedTuple):
    """Identity of an object that may be a descriptor of an emulated group."""

    dev: int
    ino: int


class _Marking(NamedTuple):
    """A job with the groups that it is about; ``instead`` is what is marked, if it is there."""

    job: MarkJob
    waits: Callable[[int], bool]
    shadow: int
    kernel: int | None
    instead: int | None
    locator: int | None

    def mark_and_look(self, dirfd: int, name: bytes | None) -> _Seen | _MayBeOurs | None:
        """With the client's rights; OSError with the errno that it is to get.

        None if it does not matter what the object is, and for an inode of a file system without
        handles: no error can name it.
        """
        job = self.job
        if not self.waits(job.call):  # what was looked up may be another task's
            raise InterruptedError(errno.EINTR, "the call was given up")
        if self.instead is not None:
            dirfd, name = self.instead, None
        elif ours := _may_be_ours(job, dirfd, name):
            return ours
        syscalls.fanotify_mark(self.shadow, job.flags, job.mask, name, dirfd)
        if self.locator is None:
            return None
        flags = FAN_MARK_ADD | FAN_MARK_FILESYSTEM | job.lookup
        try:
            seen = _look_at(job.lookup, dirfd, name)
            if seen.dev is None:
                syscalls.fanotify_mark(self.locator, flags, HOLD, name, dirfd)
            if self.kernel is not None:
                syscalls.fanotify_mark(self.kernel, flags, FAN_FS_ERROR, name, dirfd)
            return seen
        except OSError:
            if job.needed:
                raise
            return None


class MarkWorker:
    """Does one `MarkJob` after the other; ``waits(call)`` says whether a caller still waits."""

    def __init__(self, waits: Callable[[int], bool], *, debug: bool) -> None:
        self._waits, self._debug = waits, debug
        # A mark for a moment shows which superblock a path is on: s_dev is in the group's fdinfo.
        # Where stat(2) has other numbers, as on btrfs, nothing else does: mountinfo may be that
        # of a namespace where the mount is not.
        self._locator: int | None = None

    def serve(self, channel: Channel) -> NoReturn:
        """Until the other end of ``channel`` is closed."""
        try:
            while True:
                message, descriptors = channel.receive_descriptors()
                answer = self.perform(MarkJob.from_json(message), descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                channel.send(answer.to_json())
        finally:
            os._exit(0)

    def perform(self, job: MarkJob, descriptors: Sequence[int]) -> MarkAnswer:
        """The whole job.

        ``descriptors``: the shadow, and as the job says a kernel's group and what is to be marked
        instead of the object.
        """
        name, error, trouble = None, errno.EIO, ""
        try:
            if job.path and not job.pathless:
                name = text_at(job.tid, job.path)
            if job.names:
                return MarkAnswer(name=name)
            return self._mark(job, name, descriptors)._replace(name=name)
        except ProcessLookupError:
            trouble = f"the calling task {job.tid} is not visible in our pid namespace"
        except OSError as failed:
            error = failed.errno or errno.EIO
        except FserrError as failed:
            trouble = str(failed)
        except Exception as mistake:  # of ours: costs this call only
            trouble = traceback.format_exc() if self._debug else f"unexpected {mistake!r}"
        return MarkAnswer(error, trouble, name=name, last=bool(trouble))

    def _mark(self, job: MarkJob, name: bytes | None, descriptors: Sequence[int]) -> MarkAnswer:
        """Raises OSError with the errno that the client is to get, or FserrError."""
        dirfd, path = (AT_FDCWD, b"/") if job.pathless else (job.dirfd, name)
        marking = _Marking(
            job,
            self._waits,
            shadow=descriptors[0],
            kernel=descriptors[1] if job.kernel else None,
            instead=descriptors[-1] if job.instead else None,
            locator=self._locating() if job.locate else None,
        )
        seen = Client(job.tid).in_context(dirfd, path, marking.mark_and_look)
        if isinstance(seen, _MayBeOurs):
            return MarkAnswer(group=(seen.dev, seen.ino))
        if seen is None:
            return MarkAnswer()
        dev = seen.dev or self._located()
        if dev is None:  # unmounted since, and the mark with it
            return MarkAnswer(errno.ENOENT)
        return MarkAnswer(marked=MarkedObject(dev, seen.fsid, seen.form, seen.inode))

    def _locating(self) -> int:
        """The group of our own that marks are located with."""
        if self._locator is None:
            try:
                self._locator = syscalls.fanotify_init(FAN_CLOEXEC | FAN_REPORT_FID)
            except OSError as error:
                raise KernelError(
                    f"no further fanotify group can be made ({error.strerror})",
                    "raise user.max_fanotify_groups",
                ) from error
        return self._locator

    def _located(self) -> Dev | None:
        """s_dev of where the locator's mark is, which is taken off; None if there is none."""
        assert self._locator is not None
        found = superblocks_of(self._locator)
        syscalls.fanotify_mark(self._locator, FAN_MARK_FLUSH | FAN_MARK_FILESYSTEM, 0, None)
        return next(iter(found), None)


def _may_be_ours(job: MarkJob, dirfd: int, name: bytes | None) -> _MayBeOurs | None:
    """Whether the object is on a device on which descriptors of emulated groups are.

    For such a descriptor the real group behind it has to be marked: then the answer is the
    kernel's, and the supervisor does not have to answer itself: it serves the file system of
    exact descriptors.
    """
    if name == b"" or not job.own_devs:
        return None
    try:
        known = statx(name, dirfd, follow=not job.lookup & FAN_MARK_DONT_FOLLOW)
    except OSError:  # the mark fails in the same way
        return None
    return _MayBeOurs(known.dev, known.ino) if known.dev in job.own_devs else None


def _look_at(lookup: int, dirfd: int, name: bytes | None) -> _Seen:
    """The object of ``fanotify_mark(2)``; OSError if it is out of reach.

    The descriptor that this takes is closed again: the file system can be unmounted.
    """
    if name is None:
        return _look(dirfd)
    nofollow = os.O_NOFOLLOW if lookup & FAN_MARK_DONT_FOLLOW else 0
    descriptor = os.open(name, os.O_PATH | os.O_CLOEXEC | nofollow, dir_fd=dirfd)
    try:
        return _look(descriptor)
    finally:
        os.close(descriptor)


def _look(descriptor: int) -> _Seen:
    kind, status = syscalls.statfs(descriptor), os.fstat(descriptor)
    fsid = Fsid(*kind.f_fsid)
    dev = None
    if kind.f_type in _PLAIN:
        dev = Dev(os.major(status.st_dev), os.minor(status.st_dev))
    handle_type, handle, _ = syscalls.name_to_handle_at(descriptor)
    inode = inode_of(FileHandle(handle_type, handle))
    if inode is None or inode.ino != status.st_ino:
        # types alone do not suffice: FUSE and tmpfs have other layouts of the same number
        return _Seen(dev, fsid, None, None)
    return _Seen(dev, fsid, handle_type, inode)
