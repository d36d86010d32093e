"""What is mounted in other mount namespaces: those of containers, for example.

Found through processes, so a namespace without one is not. Nothing is held of what is found,
neither a namespace nor a mount: an open ``/proc/PID/mountinfo`` would keep both.
"""

from __future__ import annotations

import os

from fserr_bpf.errors import PrivilegeError
from fserr_bpf.kernel.capabilities import Capability, holds
from fserr_bpf.kernel.mounts import MountTable, read_mounts_of


def check_may_look() -> None:
    """PrivilegeError unless this process may look into namespaces of others."""
    if not holds(Capability.SYS_PTRACE):
        raise PrivilegeError(
            "CAP_SYS_PTRACE is missing: other mount namespaces cannot be seen",
            "run with sudo, or give the container CAP_SYS_PTRACE",
        )


def mounts_elsewhere() -> MountTable:
    """The mounts of all other mount namespaces, by their paths from here.

    Paths go through ``/proc/PID/root`` of the first process of each namespace. One that this
    process may not look into, for which it needs CAP_SYS_PTRACE, is left out.
    """
    return tuple(mount for process in _processes() for mount in _readable(process))


def _processes() -> list[int]:
    """A process of each other mount namespace: that with the lowest number, its init in most."""
    known = {_namespace("self")}
    found = []
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        namespace = _namespace(str(process))
        if namespace and namespace not in known:
            known.add(namespace)
            found.append(process)
    return found


def _namespace(process: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:  # it has gone, or is not for us
        return ""


def _readable(process: int) -> MountTable:
    try:
        return read_mounts_of(process)
    except PermissionError:
        return ()
