"""Which user answers for a task: whose share of our time it takes."""

from __future__ import annotations

import ctypes
import fcntl
import os

from fserr_bpf.kernel import procfs
from fserr_bpf.tasks.credentials import read_status
from fserr_bpf.tasks.looking import looking

# include/uapi/linux/nsfs.h
_NS_GET_PARENT, _NS_GET_OWNER_UID = 0xB702, 0xB704


def account_of(tid: int) -> int:
    """The uid of a task of our user namespace; below it, of the owner of the outermost one.

    So who makes a user namespace has no more than before. Raises ProcessLookupError when the
    task is gone, PrivilegeError if we may not look, OSError.
    """
    own = os.stat("self/ns/user", dir_fd=procfs.directory()).st_ino
    with looking("the user namespace"):
        namespace = procfs.open_in(f"{tid}/ns/user")
    try:
        if os.fstat(namespace).st_ino == own:
            return read_status(tid).credentials.euid
        while True:
            parent = fcntl.ioctl(namespace, _NS_GET_PARENT)
            if os.fstat(parent).st_ino == own:
                os.close(parent)
                owner = ctypes.c_uint32()
                fcntl.ioctl(namespace, _NS_GET_OWNER_UID, owner)
                return owner.value
            os.close(namespace)
            namespace = parent
    finally:
        os.close(namespace)
