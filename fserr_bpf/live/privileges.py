"""Giving up what the monitor does not need once its probes are attached.

Reading the ring, the counters, the mount table and the open /proc files needs no
right at all: the descriptors were opened before. Resolving the mount points of
file systems that appear later needs CAP_DAC_READ_SEARCH, and marking them in the
kernel's own group (no kprobes) CAP_SYS_ADMIN; the mount tables of other processes need
CAP_SYS_PTRACE. All else goes, for good.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Iterable
from enum import IntEnum

from fserr_bpf.errors import PrivilegeError, UsageError
from fserr_bpf.live.capabilities import VERSION_3, Data, Header

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"


class Capability(IntEnum):
    """The numbers of include/uapi/linux/capability.h that may be kept."""

    DAC_READ_SEARCH = 2
    SYS_PTRACE = 19
    SYS_ADMIN = 21


def drop(user: str | None, keep: Iterable[Capability]) -> None:
    """Become ``user`` with no capability at all, or stay with the capabilities in ``keep``.

    Raises UsageError for an unknown user, PrivilegeError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            code = ctypes.get_errno()
            raise PrivilegeError(f"cannot drop privileges ({os.strerror(code)})", "run as root")

    with open(_LAST_CAPABILITY) as file:
        last = int(file.read())
    kept = set(keep) if user is None else set()
    for capability in range(last + 1):
        if capability not in kept:
            check(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
    check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    if user is not None:
        _become(user)
    mask = sum(1 << capability for capability in kept)
    data = (Data * 2)(Data(mask, mask, 0), Data(0, 0, 0))
    check(libc.capset(ctypes.byref(Header(VERSION_3, 0)), data))
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def check_user(user: str | None) -> None:
    """UsageError if there is no such user; to be asked before anything is started."""
    if user is not None:
        _entry(user)


def _entry(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"no such user: {user}", "create it or name another") from None


def _become(user: str) -> None:
    entry = _entry(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
