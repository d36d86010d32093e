"""Giving up to write to files, but in some folders: Landlock, Linux 5.13 and later."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from fserr_bpf.kernel.libc import syscall
from fserr_bpf.uapi import landlock

_CHARS = "/dev/null"  # whoever closes a standard descriptor opens it


def write_only_below(folders: Iterable[str]) -> bool:
    """Let the calling thread, and those that it starts, open files for writing in ``folders`` only.

    What is open stays so. False where the kernel has no Landlock. no_new_privs has to be set
    before. Raises OSError for a folder that does not exist.
    """
    try:
        abi = syscall(
            landlock.NR_LANDLOCK_CREATE_RULESET, 0, 0, landlock.LANDLOCK_CREATE_RULESET_VERSION
        )
    except OSError:  # ENOSYS: not built, EOPNOTSUPP: switched off
        return False
    access = landlock.ACCESS_FS_WRITE_FILE | landlock.ACCESS_FS_CHANGES
    if abi >= 3:
        access |= landlock.ACCESS_FS_TRUNCATE
    attribute = landlock.RULESET_ATTR.pack(access)
    rules = syscall(landlock.NR_LANDLOCK_CREATE_RULESET, attribute, len(attribute), 0)
    try:
        for path in {*folders, _CHARS}:
            _allow(rules, path, access)
        syscall(landlock.NR_LANDLOCK_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return True


def _allow(rules: int, path: str, access: int) -> None:
    """Of a file only what files have; anything else would be EINVAL."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= ~landlock.ACCESS_FS_CHANGES
        attribute = landlock.PATH_BENEATH_ATTR.pack(access, fd)
        syscall(
            landlock.NR_LANDLOCK_ADD_RULE, rules, landlock.LANDLOCK_RULE_PATH_BENEATH, attribute, 0
        )
    finally:
        os.close(fd)
