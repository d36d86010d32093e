"""Looking into a client whose call waits: its rights, its memory, its view of paths.

/proc is that of the supervisor's pid namespace, tids are numbers there. Nothing here holds
a descriptor of the client's file systems once a method has returned.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from typing import NamedTuple, TypeVar

from fserr_bpf.live import memory
from fserr_bpf.live.attributes import Known, known_attributes
from fserr_bpf.live.child import in_child
from fserr_bpf.live.credentials import (
    Credentials,
    Status,
    read_status,
)
from fserr_bpf.live.descriptors import copy_descriptor, descriptor_identity
from fserr_bpf.live.entering import acting_as, enter, enter_user_namespace, entered
from fserr_bpf.live.pidnamespaces import pid_namespace_of
from fserr_bpf.live.privileges import Capability

AT_FDCWD = -100

# A plain look-up of it would lead to whoever looks. The link itself, with nothing behind,
# is the same for all.
_OWN_PROC = re.compile(rb"/+proc/+(?:\./+)*(thread-)?self(?=/)")

T = TypeVar("T")


class _Place(NamedTuple):
    """What decides how a path is resolved, and whether that is allowed.

    Namespaces are inode numbers.
    """

    mounts: int
    users: int
    root: Known
    credentials: Credentials


class Client:
    """The task that made a call, while it waits for the answer.

    What was found out says something about it only if ``Listener.waits(call)`` is true
    afterwards. Every method raises ProcessLookupError when the task is gone.
    """

    def __init__(self, tid: int) -> None:
        self.tid = tid

    @property
    def tgid(self) -> int:
        """Its process."""
        return self._status.tgids[0]

    def privileged(self) -> bool:
        """Whether it has CAP_SYS_ADMIN in effect, in the user namespace of the supervisor."""
        if not self._status.credentials.effective >> Capability.SYS_ADMIN & 1:
            return False
        return _namespace(self.tid, "user") == _own_place(os.getpid()).users

    def text_at(self, address: int) -> bytes:
        """A path in its memory, see :func:`fserr_bpf.live.memory.text_at`."""
        return memory.text_at(self.tid, address)

    def identity(self, fd: int) -> tuple[int, int] | None:
        """(st_dev, st_ino) of its descriptor, None if it has none of that number."""
        return descriptor_identity(self.tid, fd)

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
        and that must be picklable. Raises PrivilegeError if the supervisor may not go there.

        Not equal: ``/proc/self`` behind a symbolic link (as ``/dev/fd`` is) or a relative path
        is that of the supervisor; before 6.9, with ``path`` None, descriptors are those of the
        process's first thread.
        """
        place, own = self._place, _own_place(os.getpid())
        with ExitStack() as stack:
            directory = stack.enter_context(self._directory(dirfd, path))
            if place == own:
                status = self._status
                return work(directory, _name_proc(path, status.tgids[0], status.tids[0]))
            namespace = self.pid_namespace()
            mounts = stack.enter_context(self._opened("ns/mnt", os.O_RDONLY))
            root = stack.enter_context(self._opened("root", os.O_PATH))
            if place.users == own.users:
                with entered(mounts, root):
                    meant = _name_proc_there(path, self._status, namespace)
                    with acting_as(place.credentials, own.credentials):
                        return work(directory, meant)
            users = stack.enter_context(self._opened("ns/user", os.O_RDONLY))

            def work_there() -> T:
                enter(mounts, root)
                meant = _name_proc_there(path, self._status, namespace)
                enter_user_namespace(users, place.credentials)
                return work(directory, meant)

            return in_child(work_there)

    @contextmanager
    def _directory(self, dirfd: int, path: bytes | None) -> Iterator[int]:
        """What the kernel would begin with: AT_FDCWD if it does not matter, -1 if not there."""
        if path is None:
            copy = dirfd if dirfd == AT_FDCWD else copy_descriptor(self.tid, dirfd)
            directory = -1 if copy is None else copy
        elif not path or path.startswith(b"/"):
            directory = AT_FDCWD
        else:
            # as the start of a path it need not be open; the thread's own table counts
            name = "cwd" if dirfd == AT_FDCWD else f"fd/{dirfd}"
            try:
                directory = os.open(f"/proc/{self.tid}/{name}", os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                directory = -1
        try:
            yield directory
        finally:
            if directory >= 0:
                os.close(directory)

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        with _gone_if_missing():
            fd = os.open(f"/proc/{self.tid}/{name}", flags | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

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
    with _gone_if_missing():
        root = known_attributes(f"/proc/{task}/root")
    return _Place(_namespace(task, "mnt"), _namespace(task, "user"), root, status.credentials)


def _namespace(task: int | str, kind: str) -> int:
    """Inode number of its namespace; 0 where the kernel has no such namespaces."""
    try:
        return os.stat(f"/proc/{task}/ns/{kind}").st_ino
    except FileNotFoundError:
        if os.path.exists(f"/proc/{task}/ns"):
            return 0
        raise ProcessLookupError from None


def _name_proc(path: bytes | None, tgid: int, tid: int) -> bytes | None:
    """``path`` with a leading /proc/self or /proc/thread-self replaced by what it means there."""
    found = _OWN_PROC.match(path or b"")
    if path is None or found is None:
        return path
    task = b"/task/%d" % tid if found[1] else b""
    return b"/proc/%d%s%s" % (tgid, task, path[found.end() :])


def _name_proc_there(path: bytes | None, status: Status, namespace: int) -> bytes | None:
    """The same with the numbers of the /proc that is mounted here; ``namespace`` is the task's.

    Unchanged if that /proc does not show the task: then neither "self" means anything to it.
    """
    if path is None or not _OWN_PROC.match(path):
        return path
    for tgid, tid in zip(status.tgids, status.tids, strict=True):
        try:
            there = pid_namespace_of(tid), read_status(tid).tids[-1]
        except (OSError, KeyError, ValueError):  # no such task, or no real /proc
            continue
        if there == (namespace, status.tids[-1]):
            return _name_proc(path, tgid, tid)
    return path


@contextmanager
def _gone_if_missing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ProcessLookupError from None
