"""Going where another task is, and back: its mount namespace, its root, its rights.

All of it belongs to the calling thread, costs some microseconds, and is undone before the
block ends, so that nothing of the other's file systems stays in use. Inside, nothing may be
imported: Python would look for it in the other's files. Nor may a signal handler raise: we
could be left there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fserr_bpf.errors import PrivilegeError
from fserr_bpf.live.credentials import Credentials, set_effective, take_on
from fserr_bpf.live.privileges import Capability

_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWUSER = 0x200, 0x20000, 0x10000000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextmanager
def entered(mounts: int, root: int) -> Iterator[None]:
    """Inside, paths begin at the directory ``root`` in the mount namespace ``mounts``.

    Both are descriptors; the working directory is the root too. Raises PrivilegeError.
    """
    with ExitStack() as opened:
        own_mounts, own_root, own_directory = (
            opened.enter_context(_opened(path, flags))
            for path, flags in (
                ("/proc/self/ns/mnt", os.O_RDONLY),
                ("/", os.O_PATH),
                (".", os.O_PATH),
            )
        )
        _enter_mounts(mounts)
        try:
            _change_root(root)
            yield
        finally:
            _enter_mounts(own_mounts)
            _change_root(own_root)
            os.fchdir(own_directory)


def enter(mounts: int, root: int) -> None:
    """The same, and stay there."""
    _enter_mounts(mounts)
    _change_root(root)


def _enter_mounts(mounts: int) -> None:
    with _told():
        # setns(2) wants that no other thread shares root and directory, not even one about to end
        _check(_libc.unshare(_CLONE_FS))
        _check(_libc.setns(mounts, _CLONE_NEWNS))


def _change_root(root: int) -> None:
    with _told():
        os.fchdir(root)
        os.chroot(".")


@contextmanager
def acting_as(theirs: Credentials, own: Credentials) -> Iterator[None]:
    """Inside, paths are judged by ``theirs``; ``own`` are those before. Raises PrivilegeError."""
    try:
        with _told():
            take_on(theirs)
        yield
    finally:
        with _told():
            take_on(own)


def enter_user_namespace(users: int, credentials: Credentials) -> None:
    """Be in the user namespace of that descriptor with ``credentials``, and stay there.

    For a process of one thread. Raises PrivilegeError.
    """
    with _told():
        # user and group are numbers of our own namespace, capabilities those of the other
        take_on(credentials._replace(effective=1 << Capability.SYS_ADMIN))
        _check(_libc.setns(users, _CLONE_NEWUSER))
        set_effective(credentials.effective)


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PrivilegeError(
            f"cannot act in the client's place ({error.strerror})",
            "run as root with all capabilities",
        ) from error
