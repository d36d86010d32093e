"""What /proc says of a task's rights, and how a thread takes them on."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

from fserr_bpf.live.capabilities import VERSION_3, Data, Header

_NR_SETGROUPS, _NR_SETFSUID, _NR_SETFSGID = 116, 122, 123

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Credentials(NamedTuple):
    """What the kernel judges a path's permissions by; ``effective`` is a mask of capabilities.

    Numbers are those of the reader's user namespace.
    """

    fsuid: int
    fsgid: int
    groups: tuple[int, ...]
    effective: int


class Status(NamedTuple):
    """The part of ``/proc/TID/status`` that is used.

    ``tgids`` and ``tids`` begin with the numbers in the pid namespace of /proc; the last ones
    are those in the task's own.
    """

    tgids: tuple[int, ...]
    tids: tuple[int, ...]
    credentials: Credentials


def read_status(task: int | str) -> Status:
    """Of a tid, or of "self". Raises ProcessLookupError when the task is gone."""
    try:
        with open(f"/proc/{task}/status", "rb", buffering=0) as file:
            text = file.read()
    except FileNotFoundError:
        raise ProcessLookupError from None

    def field(name: bytes) -> list[bytes]:
        begin = text.index(name) + len(name)
        return text[begin : text.index(b"\n", begin)].split()

    return Status(
        tuple(map(int, field(b"\nNStgid:"))),
        tuple(map(int, field(b"\nNSpid:"))),
        Credentials(
            int(field(b"\nUid:")[3]),
            int(field(b"\nGid:")[3]),
            tuple(map(int, field(b"\nGroups:"))),
            int(field(b"\nCapEff:")[0], 16),
        ),
    )


def take_on(credentials: Credentials) -> None:
    """Let the calling thread's paths be judged by ``credentials``. Raises OSError.

    Only what a path is judged by changes: real, effective and saved uid stay, so that
    processes of that user can neither stop nor kill us, and so do the permitted
    capabilities. So it can be taken back in the same way.
    """
    # The numbers of x86-64: the library's own functions would change every thread.
    groups = (ctypes.c_uint32 * len(credentials.groups))(*credentials.groups)
    _, permitted, inheritable = _capabilities()
    # what setfsuid(2) takes away, and what it needs, is in the permitted ones
    _set_capabilities(permitted, permitted, inheritable)
    _check(_libc.syscall(_NR_SETGROUPS, len(groups), groups))
    _set_for_files(_NR_SETFSGID, credentials.fsgid)
    _set_for_files(_NR_SETFSUID, credentials.fsuid)
    _set_capabilities(credentials.effective, permitted, inheritable)


def _set_for_files(number: int, wanted: int) -> None:
    _libc.syscall(number, wanted)  # returns the old one, whether it worked or not
    if _libc.syscall(number, -1) != wanted:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def set_effective(mask: int) -> None:
    """Change the effective capabilities only. Raises OSError."""
    _, permitted, inheritable = _capabilities()
    _set_capabilities(mask, permitted, inheritable)


def _capabilities() -> tuple[int, int, int]:
    """Effective, permitted, inheritable."""
    data = (Data * 2)()
    _check(_libc.capget(ctypes.byref(Header(VERSION_3, 0)), data))
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def _set_capabilities(*masks: int) -> None:
    halves = (Data(*(mask >> shift & 0xFFFFFFFF for mask in masks)) for shift in (0, 32))
    header = Header(VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), (Data * 2)(*halves)))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
