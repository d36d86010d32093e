"""A client whose call waits: its rights, and its view of paths.

Tids are numbers in our own pid namespace, and what is said about a task is what our own
procfs says (`kernel/procfs.py`). Nothing here holds a descriptor of the client's file systems
once a method has returned.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple, TypeVar

from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.libc import failure
from fserr_bpf.kernel.syscalls import Statx, open_below, statfs, statx
from fserr_bpf.tasks.child import in_child
from fserr_bpf.tasks.credentials import Credentials, Status, read_status
from fserr_bpf.tasks.descriptors import copy_descriptor
from fserr_bpf.tasks.looking import looking
from fserr_bpf.tasks.namespaces import acting_in, enter_user_namespace
from fserr_bpf.tasks.pidnamespaces import pid_namespace_of
from fserr_bpf.uapi.fcntl import AT_FDCWD

# Looked up plainly, it would lead to the supervisor. The link itself, as the last component,
# is the same for all.
_OWN_PROC = re.compile(rb"/+proc/+(?:\./+)*(thread-)?self(?=/)")

# descriptors of mount namespace, root and user namespace
_TO_GO_THERE = (("ns/mnt", os.O_RDONLY), ("root", os.O_PATH), ("ns/user", os.O_RDONLY))

T = TypeVar("T")


class _Place(NamedTuple):
    """What decides how a path is resolved, and whether that is allowed.

    Namespaces are inode numbers. ``root`` is None if its file server keeps us out.
    """

    mounts: int
    users: int
    root: Statx | None
    credentials: Credentials


@dataclass(frozen=True)
class Client:
    """The task that made a call, while it waits for the answer.

    What was found out says something about it only if ``Listener.waits(call)`` is true
    afterwards. Every method raises ProcessLookupError when the task is gone, PrivilegeError if
    we may not look at it.
    """

    tid: int

    def privileged(self) -> bool:
        """Whether it has CAP_SYS_ADMIN in effect, in the user namespace of the supervisor."""
        if not self._status.credentials.effective >> Capability.SYS_ADMIN & 1:
            return False
        with looking("the user namespace"):
            return _namespace(self.tid, "user") == _own_place(os.getpid()).users

    def pid_namespace(self) -> int:
        """Inode number of its pid namespace."""
        return pid_namespace_of(self.tid)

    def in_context(
        self, dirfd: int, path: bytes | None, work: Callable[[int, bytes | None], T]
    ) -> T:
        """Run ``work(dirfd, path)`` with arguments and in a place such that they mean what they
        mean to the client: its root, working directory, mount namespace, rights, descriptors.

        Everything of the client has been looked up when work runs, so that is the place to ask
        ``Listener.waits``. A descriptor that the client does not have is passed as -1. Work
        must not import anything. For a client in another user namespace, which cannot be
        left again, it runs in a forked child: then only what it returns or raises comes back,
        and that must be picklable. Raises PrivilegeError if the supervisor may not go there,
        OSError as ``work`` does.

        A path that begins with /proc/self means the client's own process; if the procfs there
        does not show it, that is ENOENT as for the client. Not equal: ``/proc/self`` behind a
        symbolic link (as ``/dev/fd`` is) or a relative path is that of the supervisor; before
        6.9, with ``path`` None, descriptors are those of the process's first thread.
        """
        opened: list[int] = []
        try:
            with looking("the place"):
                place, own = self._place, _own_place(os.getpid())
                directory = self._directory(dirfd, path, opened)
                for name, flags in () if place == own and own.root else _TO_GO_THERE:
                    opened.append(procfs.open_in(f"{self.tid}/{name}", flags))
            if place == own and own.root:
                return work(directory, self._name_own_proc(path))
            mounts, root, users = opened[-3:]
            if place.users == own.users:
                with acting_in(mounts, root, place.credentials, own.credentials):
                    return work(directory, self._name_own_proc(path))

            def work_there() -> T:
                enter_user_namespace(mounts, root, users, place.credentials)
                return work(directory, self._name_own_proc(path))

            return in_child(work_there)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _directory(self, dirfd: int, path: bytes | None, opened: list[int]) -> int:
        """What the kernel would begin with: AT_FDCWD if it does not matter, -1 if not there.

        A descriptor is one of ``opened``.
        """
        if path is None:
            if dirfd == AT_FDCWD:
                return dirfd
            directory = copy_descriptor(self.tid, dirfd)
            if directory is None:
                return -1
        elif not path or path.startswith(b"/"):
            return AT_FDCWD
        else:
            # as the start of a path it need not be open; the thread's own table counts
            name = "cwd" if dirfd == AT_FDCWD else f"fd/{dirfd}"
            try:
                directory = procfs.open_in(f"{self.tid}/{name}", os.O_PATH)
            except FileNotFoundError:
                return -1
        opened.append(directory)
        return directory

    def _name_own_proc(self, path: bytes | None) -> bytes | None:
        """``path`` with a leading /proc/self or /proc/thread-self replaced by what it means.

        That is for the procfs that is mounted where we are now, with the rights that we have
        now. What is no procfs has no such links: then the path is as it is. Raises
        FileNotFoundError if the task is not visible in it.
        """
        found = _OWN_PROC.match(path or b"")
        if path is None or found is None:
            return path
        try:
            proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # so will be the path
            return path
        try:
            if statfs(proc).f_type != procfs.PROC_SUPER_MAGIC:
                return path
            tgid, tid = _numbers_in(proc, self._status, _started(procfs.directory(), f"{self.tid}"))
        finally:
            os.close(proc)
        task = b"/task/%d" % tid if found[1] else b""
        return b"/proc/%d%s%s" % (tgid, task, path[found.end() :])

    @cached_property
    def _status(self) -> Status:
        return read_status(self.tid)

    @cached_property
    def _place(self) -> _Place:
        return _place_of(self.tid, self._status)


@cache
def _own_place(_pid: int) -> _Place:
    """The supervisor's, which it does not leave; once per process."""
    return _place_of("self", read_status("self"))


def _place_of(task: int | str, status: Status) -> _Place:
    """Raises OSError where the task cannot be looked at."""
    mounts, users = _namespace(task, "mnt"), _namespace(task, "user")
    try:
        root = statx(f"{task}/root", procfs.directory())
    except PermissionError:  # to enter it will show whether it was the file server
        root = None
    return _Place(mounts, users, root, status.credentials)


def _namespace(task: int | str, kind: str) -> int:
    """Inode number of its namespace; 0 where the kernel has no such namespaces."""
    try:
        return os.stat(f"{task}/ns/{kind}", dir_fd=procfs.directory()).st_ino
    except FileNotFoundError:
        os.stat(f"{task}/ns", dir_fd=procfs.directory())
        return 0


def _numbers_in(proc: int, status: Status, started: bytes) -> tuple[int, int]:
    """The numbers of process and task in the procfs ``proc``; FileNotFoundError if not there.

    It may be that of any pid namespace. In one around ours it has numbers that we do not know:
    then all are looked through.
    """
    for level, (tgid, tid) in enumerate(zip(status.tgids, status.tids, strict=True)):
        if _is_task(proc, f"{tid}", status.tids[level + 1 :], started):
            return tgid, tid
    for tgid in _numbers_below(proc, "."):
        for tid in _numbers_below(proc, f"{tgid}/task"):
            if _is_task(proc, f"{tgid}/task/{tid}", status.tids, started):
                return tgid, tid
    raise failure(errno.ENOENT)


def _is_task(proc: int, path: str, inner: tuple[int, ...], started: bytes) -> bool:
    """Whether the task there has the numbers ``inner`` in namespaces further in, and that start."""
    try:
        numbers = _read_below(proc, f"{path}/status").partition(b"\nNSpid:")[2]
        found = tuple(map(int, numbers.partition(b"\n")[0].split()))
        same = len(found) > len(inner) and found[len(found) - len(inner) :] == inner
        return same and _started(proc, path) == started
    except (OSError, ValueError, IndexError):  # no such task
        return False


def _numbers_below(proc: int, path: str) -> list[int]:
    try:
        directory = open_below(proc, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return [int(name) for name in os.listdir(directory) if name.isdigit()]
    finally:
        os.close(directory)


def _started(proc: int, path: str) -> bytes:
    """Field 22 of its ``stat``. Raises OSError, IndexError."""
    return _read_below(proc, f"{path}/stat").rpartition(b")")[2].split()[19]


def _read_below(proc: int, path: str) -> bytes:
    descriptor = open_below(proc, path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
