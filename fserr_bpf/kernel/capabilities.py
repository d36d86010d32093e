"""Capabilities of the calling thread: capget(2), capset(2), ``uapi/linux/capability.h``."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import NamedTuple

from fserr_bpf.kernel.libc import check, libc

_VERSION_3 = 0x20080522


class Capability(IntEnum):
    """The numbers of those that matter here."""

    DAC_READ_SEARCH = 2
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYSLOG = 34


class Sets(NamedTuple):
    """Masks of capabilities."""

    effective: int
    permitted: int
    inheritable: int


class _Header(ctypes.Structure):
    """``struct __user_cap_header_struct``; pid 0 is the caller."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """``struct __user_cap_data_struct``: 32 capabilities; a call takes two of them."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def capget() -> Sets:
    """What the calling thread has. Raises OSError."""
    data = (_Data * 2)()
    check(libc.capget(ctypes.byref(_Header(_VERSION_3, 0)), data))
    low, high = data
    return Sets(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(sets: Sets) -> None:
    """Change what the calling thread has. Raises OSError."""
    halves = (_Data(*(mask >> shift & 0xFFFFFFFF for mask in sets)) for shift in (0, 32))
    check(libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), (_Data * 2)(*halves)))


def holds(capability: Capability) -> bool:
    """Whether the calling thread has it in effect."""
    return bool(capget().effective >> capability & 1)
