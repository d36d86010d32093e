"""Whether the kernel is locked down, also where nobody has mounted securityfs.

Source: ``security/lockdown/lockdown.c``. The mount API of ``uapi/linux/mount.h`` gives a mount
that no other process sees, and that ends with its descriptor.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from fserr_bpf.kernel.libc import syscall

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
# the same numbers on all architectures
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


def is_confidential() -> bool:
    """Whether BPF may not read kernel memory; False where that cannot be found out."""
    try:
        return "[confidentiality]" in state()
    except OSError:  # no such security module, or no right to mount
        return False


def state() -> str:
    """All states, that of this kernel in brackets: ``none [integrity] confidentiality``.

    Raises OSError where the kernel has no lockdown or the caller may not mount.
    """
    if _LOCKDOWN.exists():
        return _LOCKDOWN.read_text()
    null = ctypes.c_void_p()
    context = syscall(_FSOPEN, ctypes.c_char_p(b"securityfs"), _FSOPEN_CLOEXEC)
    try:
        syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, null, null, 0)
        mount = syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        file = os.open("lockdown", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
        with open(file) as opened:
            return opened.read()
    finally:
        os.close(mount)
