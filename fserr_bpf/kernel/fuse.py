"""A FUSE file system that is mounted nowhere: only its descriptor leads into it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from fserr_bpf.errors import KernelError, PrivilegeError
from fserr_bpf.kernel.detachedmounts import mount_detached

_DEVICE = "/dev/fuse"


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
        raise KernelError(f"{_DEVICE}: {error.strerror}", "run without --exact") from error


def mount_fuse(device: int) -> int:
    """A descriptor of the root of a new mount that ``device`` serves.

    Nothing is asked of the server for it but FUSE_INIT, which need not be answered yet. The
    mount goes with the last descriptor in it. Raises KernelError or PrivilegeError.
    """
    options = {"fd": str(device), "rootmode": "40000", "user_id": "0", "group_id": "0"}
    try:
        # a client may have given up its user id since it opened the descriptor
        return mount_detached("fuse", options, ["allow_other"])
    except PermissionError as error:
        raise PrivilegeError("a FUSE mount is not permitted", "run as root") from error
    except OSError as error:
        raise KernelError(f"FUSE mount: {error.strerror}", "run without --exact") from error


def _load() -> None:
    try:
        result = subprocess.run(["modprobe", "fuse"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise KernelError(f"modprobe fuse: {error.strerror}", "run without --exact") from error
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["failed"])[-1]
        raise KernelError(f"this kernel has no FUSE: {reason}", "run without --exact")
