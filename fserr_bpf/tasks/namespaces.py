"""Going where another task is, and back: its mount namespace, its root, its rights.

All of it belongs to the calling thread, costs some microseconds, and is undone before the
block ends, so that nothing of the other's file systems stays in use. The rights are taken on
before anything of that place is looked up: until its root is entered only the capabilities
that this needs stay. Inside, nothing may be imported: Python would look for it in the
other's files. Nor may a signal handler raise: we could be left there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fserr_bpf.errors import PrivilegeError
from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.libc import check, libc
from fserr_bpf.tasks.credentials import Credentials, kept_apart, set_effective, take_on

_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWUSER = 0x200, 0x20000, 0x10000000
_TO_ENTER_A_ROOT = 1 << Capability.SYS_CHROOT | 1 << Capability.DAC_READ_SEARCH
_TO_ENTER = _TO_ENTER_A_ROOT | 1 << Capability.SYS_ADMIN


@contextmanager
def acting_in(mounts: int, root: int, theirs: Credentials, own: Credentials) -> Iterator[None]:
    """Inside, paths begin at ``root`` in the mount namespace ``mounts``, judged by ``theirs``.

    Both are descriptors; the working directory is the root too. ``own`` are the rights
    before. Raises PrivilegeError.
    """
    with ExitStack() as opened:
        own_mounts, own_root, own_directory = (
            opened.enter_context(_opened(path, flags, directory))
            for path, flags, directory in (
                ("thread-self/ns/mnt", os.O_RDONLY, procfs.directory()),
                ("/", os.O_PATH, None),
                (".", os.O_PATH, None),
            )
        )
        try:
            _enter(mounts, root, theirs)
            with _privilege_error():
                set_effective(theirs.effective)
            yield
        finally:
            with _privilege_error():
                take_on(own)
            _enter_mounts(own_mounts)
            _change_root(own_root)
            os.fchdir(own_directory)


def own_mount_namespace() -> None:
    """Leave the mount namespace for a copy of it, which ends with the process. Raises OSError.

    Mounts still go from one to the other where they are shared: `mount --make-rprivate /`.
    """
    check(libc.unshare(_CLONE_NEWNS))


def enter_user_namespace(mounts: int, root: int, users: int, theirs: Credentials) -> None:
    """The same in the user namespace ``users`` (a descriptor), and stay there.

    For a process of one thread. Raises PrivilegeError.
    """
    _enter(mounts, root, theirs)
    with _privilege_error():
        # user and group are numbers of our own namespace, capabilities those of the other
        with kept_apart():
            check(libc.setns(users, _CLONE_NEWUSER))
        set_effective(theirs.effective)


def _enter(mounts: int, root: int, theirs: Credentials) -> None:
    """With their rights, and still the capabilities that entering needs."""
    with _privilege_error():
        _enter_mounts(mounts)
        take_on(theirs, also=_TO_ENTER)
        _change_root(root)


def _enter_mounts(mounts: int) -> None:
    with _privilege_error():
        # setns(2) wants that no other thread shares root and directory, not even one about to end
        check(libc.unshare(_CLONE_FS))
        check(libc.setns(mounts, _CLONE_NEWNS))


def _change_root(root: int) -> None:
    with _privilege_error():
        os.fchdir(root)
        os.chroot(".")


@contextmanager
def _opened(path: str, flags: int, directory: int | None) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _privilege_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PrivilegeError(
            f"cannot take the client's namespaces and credentials ({error.strerror})",
            "run as root with all capabilities",
        ) from error
