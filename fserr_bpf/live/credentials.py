"""What /proc says of a task's rights, and how a process takes them on."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import NamedTuple

_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


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
        text = Path(f"/proc/{task}/status").read_bytes()
    except FileNotFoundError:
        raise ProcessLookupError from None
    fields = dict(line.split(b":", 1) for line in text.splitlines())

    def numbers(name: bytes) -> tuple[int, ...]:
        return tuple(map(int, fields[name].split()))

    return Status(
        numbers(b"NStgid"),
        numbers(b"NSpid"),
        Credentials(
            numbers(b"Uid")[3],
            numbers(b"Gid")[3],
            numbers(b"Groups"),
            int(fields[b"CapEff"], 16),
        ),
    )


def become(credentials: Credentials, user_namespace: int | None) -> None:
    """Take ``credentials`` on, and enter the user namespace of that descriptor. For good.

    Only for a process of one thread with every capability. The real and the saved uid stay:
    processes of that user cannot kill or stop us. Raises OSError.
    """
    os.setgroups(credentials.groups)
    os.setresgid(credentials.fsgid, credentials.fsgid, credentials.fsgid)
    permitted = _permitted()
    os.setresuid(-1, credentials.fsuid, -1)  # the uid of the file system follows
    if user_namespace is not None:
        _set_capabilities(permitted, permitted)  # setresuid took the effective ones
        enter_namespace(user_namespace, _CLONE_NEWUSER)
    _set_capabilities(credentials.effective, credentials.effective)


def enter_namespace(fd: int, kind: int) -> None:
    """``setns(2)``, which Python has since 3.12. Raises OSError."""
    _check(_libc.setns(fd, kind))


def _permitted() -> int:
    data = (_Data * 2)()
    _check(_libc.capget(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), data))
    return int(data[0].permitted | data[1].permitted << 32)


def _set_capabilities(effective: int, permitted: int) -> None:
    halves = (
        _Data(effective >> shift & 0xFFFFFFFF, permitted >> shift & 0xFFFFFFFF, 0)
        for shift in (0, 32)
    )
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), (_Data * 2)(*halves)))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
