"""Pid namespaces: which one a task belongs to, and its numbers there.

Tids are those of our own pid namespace.
"""

from __future__ import annotations

import fcntl
import os

from fserr_bpf.kernel import procfs
from fserr_bpf.tasks.credentials import read_status
from fserr_bpf.tasks.looking import looking

_NS_GET_PARENT = 0xB702  # include/uapi/linux/nsfs.h


def pid_namespace_of(task: int | str) -> int:
    """Inode number of the pid namespace of a tid, or of "self"; ProcessLookupError if gone."""
    with looking("the pid namespace"):
        return os.stat(f"{task}/ns/pid", dir_fd=procfs.directory()).st_ino


def pid_seen_by(pid: int, namespace: int) -> int:
    """The number of process or thread ``pid`` in the pid namespace with that inode number.

    0 if it is not visible there, or gone; its number in our own namespace is known always.
    """
    if namespace == pid_namespace_of("self"):
        return pid
    try:
        chain = _pid_namespaces(pid)
        numbers = read_status(pid).tids
    except ProcessLookupError:
        return 0
    return dict(zip(chain, numbers, strict=True)).get(namespace, 0)


def _pid_namespaces(tid: int) -> list[int]:
    """Inode numbers of the pid namespaces that see the task, our own first.

    As many as its status has numbers. Raises ProcessLookupError if it is gone.
    """
    ours = pid_namespace_of("self")
    with looking("the pid namespace"):
        fd = procfs.open_in(f"{tid}/ns/pid")
    chain = []
    try:
        chain.append(os.fstat(fd).st_ino)
        while chain[-1] != ours:
            child, fd = fd, fcntl.ioctl(fd, _NS_GET_PARENT)
            os.close(child)
            chain.append(os.fstat(fd).st_ino)
    finally:
        os.close(fd)
    return chain[::-1]
