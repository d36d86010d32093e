"""A task's rights as procfs has them, and how a thread takes them on."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.capabilities import capget, capset
from fserr_bpf.kernel.libc import check, failure, libc, syscall
from fserr_bpf.tasks.looking import looking

_NR_SETGROUPS, _NR_SETRESUID, _NR_SETRESGID, _NR_SETFSUID, _NR_SETFSGID = 116, 117, 119, 122, 123
_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 1, 3, 4
_PR_GET_PDEATHSIG, _PR_SET_NAME = 2, 15
_UNCHANGED = -1


class Credentials(NamedTuple):
    """What the kernel and file servers judge a path's permissions by.

    ``effective`` is a mask of capabilities. Numbers are those of the reader's user namespace.
    """

    euid: int
    egid: int
    fsuid: int
    fsgid: int
    groups: tuple[int, ...]
    effective: int


class Status(NamedTuple):
    """The part of ``/proc/TID/status`` that is used.

    ``tgids`` and ``tids`` begin with the numbers in our pid namespace; the last ones are those
    in the task's own.
    """

    tgids: tuple[int, ...]
    tids: tuple[int, ...]
    credentials: Credentials


def read_status(task: int | str) -> Status:
    """Of a tid, or of "self".

    Raises ProcessLookupError when the task is gone, PrivilegeError if we may not look.
    """
    with looking("the status"):
        text = procfs.read(f"{task}/status")

    def field(name: bytes) -> list[bytes]:
        begin = text.index(name) + len(name)
        return text[begin : text.index(b"\n", begin)].split()

    try:
        _, euid, _, fsuid = map(int, field(b"\nUid:"))
        _, egid, _, fsgid = map(int, field(b"\nGid:"))
        groups = tuple(map(int, field(b"\nGroups:")))
        effective = int(field(b"\nCapEff:")[0], 16)
        tgids, tids = map(int, field(b"\nNStgid:")), map(int, field(b"\nNSpid:"))
        return Status(
            tuple(tgids), tuple(tids), Credentials(euid, egid, fsuid, fsgid, groups, effective)
        )
    except ValueError:
        raise ProcessLookupError from None  # it has just ended


def take_on(credentials: Credentials, *, also: int = 0) -> None:
    """Let the calling thread's paths be judged by ``credentials``. Raises OSError.

    ``also`` are capabilities that stay for a while, see `set_effective`. Real and saved uid
    stay, so that processes of that user can neither stop nor kill us, and so do the permitted
    capabilities. So it can be taken back in the same way.
    """
    # The numbers of x86-64: the library's own functions would change every thread.
    groups = (ctypes.c_uint32 * len(credentials.groups))(*credentials.groups)
    held = capget()
    with kept_apart():
        # what a change of user takes away, and what it needs, is in the permitted ones
        capset(held._replace(effective=held.permitted))
        syscall(_NR_SETGROUPS, len(groups), groups)
        syscall(_NR_SETRESGID, _UNCHANGED, credentials.egid, _UNCHANGED)
        syscall(_NR_SETRESUID, _UNCHANGED, credentials.euid, _UNCHANGED)
        capset(held._replace(effective=held.permitted))
        _set_for_files(_NR_SETFSGID, credentials.fsgid)
        _set_for_files(_NR_SETFSUID, credentials.fsuid)
        capset(held._replace(effective=(credentials.effective | also) & held.permitted))


def _set_for_files(number: int, wanted: int) -> None:
    libc.syscall(number, wanted)  # returns the old one, whether it worked or not
    if libc.syscall(number, -1) != wanted:
        raise failure(errno.EPERM)


def set_effective(mask: int) -> None:
    """Change the effective capabilities only. Raises OSError."""
    with kept_apart():
        capset(capget()._replace(effective=mask))


@contextmanager
def kept_apart() -> Iterator[None]:
    """Inside, a change of rights does not undo `end_with_parent` and `out_of_reach`.

    The kernel does so in commit_creds(): what follows the parent's end is forgotten, and what
    may be traced is set anew. A parent that ends in between has sent nothing.
    """
    parent, number = os.getppid(), ctypes.c_int()
    check(libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0))
    dumpable = check(libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0))
    try:
        yield
    finally:
        check(libc.prctl(_PR_SET_PDEATHSIG, number.value, 0, 0, 0))
        check(libc.prctl(_PR_SET_DUMPABLE, int(dumpable == 1), 0, 0, 0))
        if number.value and os.getppid() != parent:
            os._exit(1)


def end_with_parent(parent: int) -> None:
    """Be killed when the thread that forked us ends; at once if ``parent`` has ended already."""
    check(libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def be_called(name: str) -> None:
    """Have lists of processes show the calling thread as ``name``, 15 characters at most."""
    check(libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0))


def out_of_reach() -> None:
    """Let only those trace this process and its children who may trace everybody.

    So taking on a client's user or entering its user namespace gives it no memory of ours.
    """
    check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
