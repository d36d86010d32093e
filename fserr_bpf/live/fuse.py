"""A FUSE file system that is mounted nowhere: only its descriptor leads into it."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path

from fserr_bpf.errors import KernelError, PrivilegeError

# the same numbers on every architecture since 5.2
_NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_FSMOUNT_CLOEXEC = 1
_DEVICE = "/dev/fuse"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def open_fuse() -> int:
    """``/dev/fuse``, non-blocking; the module is loaded if need be.

    Raises KernelError where there is none, PrivilegeError where it is not ours.
    """
    if "fuse" not in Path("/proc/filesystems").read_text().split():
        _load()
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError as error:
        raise PrivilegeError(f"{_DEVICE}: not permitted", "run as root") from error
    except OSError as error:
        raise KernelError(f"{_DEVICE}: {error.strerror}", "do without --exact") from error


def mount_fuse(device: int) -> int:
    """A descriptor of the root of a new mount that ``device`` serves.

    Nothing is asked of the server for it but FUSE_INIT, which need not be answered yet. The
    mount goes with the last descriptor in it. Raises KernelError or PrivilegeError.
    """
    options = {"fd": str(device), "rootmode": "40000", "user_id": "0", "group_id": "0"}
    try:
        context = _syscall(_NR_FSOPEN, b"fuse", _FSOPEN_CLOEXEC)
        try:
            for name, value in options.items():
                _fsconfig(context, _FSCONFIG_SET_STRING, name.encode(), value.encode())
            # a client may have given up its user id since it opened the descriptor
            _fsconfig(context, _FSCONFIG_SET_FLAG, b"allow_other", None)
            _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None)
            return _syscall(_NR_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
        finally:
            os.close(context)
    except PermissionError as error:
        raise PrivilegeError("a FUSE mount is not permitted", "run as root") from error
    except OSError as error:
        raise KernelError(f"FUSE mount: {error.strerror}", "do without --exact") from error


def _load() -> None:
    try:
        result = subprocess.run(["modprobe", "fuse"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise KernelError(f"modprobe fuse: {error.strerror}", "do without --exact") from error
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["failed"])[-1]
        raise KernelError(f"this kernel has no FUSE: {reason}", "do without --exact")


def _fsconfig(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    _syscall(_NR_FSCONFIG, context, command, key, value, 0)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    converted = (
        ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value)
        for value in arguments
    )
    result = int(_libc.syscall(ctypes.c_long(number), *converted))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code or errno.EIO, os.strerror(code))
    return result
