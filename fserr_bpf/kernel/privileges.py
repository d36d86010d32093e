"""Giving up what the monitor does not need once its probes are attached.

Reading the ring, the counters, the mount table and the open /proc files needs no
right at all: the descriptors were opened before. Resolving the mount points of
file systems that appear later needs CAP_DAC_READ_SEARCH, as does asking for the state of
one whose root directory is not for us, and marking them in the
kernel's own group (no kprobes) CAP_SYS_ADMIN; the mount tables of other processes need
CAP_SYS_PTRACE. All else goes, for good.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from fserr_bpf.errors import PrivilegeError, UsageError
from fserr_bpf.kernel.capabilities import Capability, Sets, capset, holds
from fserr_bpf.kernel.libc import check, libc

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"


def drop(user: str | None, keep: Iterable[Capability]) -> None:
    """Become ``user`` with no capability at all, or stay with the capabilities in ``keep``.

    Raises UsageError for an unknown user, PrivilegeError for a capability that this needs and
    the caller lacks, or when the kernel refuses.
    """
    check_drop(user)
    with open(_LAST_CAPABILITY) as file:
        last = int(file.read())
    kept = set(keep) if user is None else set()
    mask = sum(1 << capability for capability in kept)
    # without CAP_SETPCAP, as in a unit that leaves it out, no_new_privs alone keeps execve(2) from
    # giving anything back
    bounded = range(last + 1) if holds(Capability.SETPCAP) else ()
    try:
        for capability in bounded:
            if capability not in kept:
                check(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
        check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        if user is not None:
            _become(user)
        capset(Sets(mask, mask, 0))
        set_no_new_privs()
    except OSError as error:
        raise PrivilegeError(
            f"cannot drop privileges ({error.strerror})", "run as root without a security filter"
        ) from error


def may_read(directory: str) -> bool:
    """Whether this user may list ``directory`` without any capability, by modes and owners.

    Not where these cannot be seen, as of a file system that was shut down.
    """
    above = [*Path(os.path.abspath(directory)).parents]
    return _allows(directory, 0o5) and all(_allows(str(each), 0o1) for each in above)


def _allows(path: str, wanted: int) -> bool:
    """``wanted`` are bits of the lowest three of a mode."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    shift = 0
    if status.st_uid == os.geteuid():
        shift = 6
    elif status.st_gid in (os.getegid(), *os.getgroups()):
        shift = 3
    return (status.st_mode >> shift) & wanted == wanted


def set_no_new_privs() -> None:
    """No execve(2) of the calling thread gives it rights any more. Raises OSError."""
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def check_drop(user: str | None) -> None:
    """Raise what ``drop()`` would for ``user``; to be asked before anything is started."""
    if user is None:
        return
    _entry(user)
    needed = (Capability.SETGID, Capability.SETUID)
    if lacking := ", ".join(f"CAP_{one.name}" for one in needed if not holds(one)):
        raise PrivilegeError(
            f"{lacking} is missing, which giving up rights needs", f"give it {lacking}"
        )


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
