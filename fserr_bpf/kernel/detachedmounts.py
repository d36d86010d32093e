"""Mounts that are nowhere in the tree of paths: only a descriptor leads into them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from fserr_bpf.kernel.libc import syscall

# the same numbers on every architecture since 5.2
_NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_FSMOUNT_CLOEXEC = 1


def mount_detached(fstype: str, options: Mapping[str, str], flags: Iterable[str] = ()) -> int:
    """A descriptor, close-on-exec, of the root of a new mount; ``flags`` are options without value.

    The mount goes with the last descriptor in it. Raises OSError.
    """
    context = syscall(_NR_FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC)
    try:
        for name, value in options.items():
            _fsconfig(context, _FSCONFIG_SET_STRING, name.encode(), value.encode())
        for name in flags:
            _fsconfig(context, _FSCONFIG_SET_FLAG, name.encode(), None)
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None)
        return syscall(_NR_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def _fsconfig(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    syscall(_NR_FSCONFIG, context, command, key, value, 0)
