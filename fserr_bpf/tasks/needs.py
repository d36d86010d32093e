"""What ``exec`` itself needs besides the probes, asked before a client is started."""

from __future__ import annotations

import ctypes
import os

from fserr_bpf.errors import FserrError, KernelError, PrivilegeError
from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.capabilities import Capability, capget
from fserr_bpf.tasks.child import in_child
from fserr_bpf.tasks.descriptors import copy_descriptor, same_file
from fserr_bpf.tasks.memory import text_at

# What for: marks and namespaces; memory and descriptors of clients; their root; their user and
# groups; what in procfs is their user's.
_CAPABILITIES = (
    Capability.SYS_ADMIN,
    Capability.SYS_PTRACE,
    Capability.SYS_CHROOT,
    Capability.SETUID,
    Capability.SETGID,
    Capability.DAC_READ_SEARCH,
)
_TEXT = b"can be read"


def check_needs() -> None:
    """PrivilegeError or KernelError, if calls of a client could not be done.

    That is tried with a child: a security module or a seccomp filter may forbid it to root too.
    """
    effective = capget().effective
    missing = [f"CAP_{c.name}" for c in _CAPABILITIES if not effective >> c & 1]
    if missing:
        raise PrivilegeError(f"exec needs {' '.join(missing)}", "run as root with all capabilities")
    procfs.directory()
    text = ctypes.create_string_buffer(_TEXT)
    failed = in_child(lambda: _try(os.getppid(), ctypes.addressof(text)))
    if failed is not None:
        raise failed


def _try(parent: int, address: int) -> FserrError | None:
    try:
        text_at(parent, address)
        copied = copy_descriptor(parent, procfs.directory())
    except FserrError as error:
        return error
    assert copied is not None
    if not same_file(parent, procfs.directory(), copied):
        return KernelError(
            "descriptors of a client cannot be compared",
            "use Linux 6.10, or a kernel with CONFIG_KCMP",
        )
    return None
