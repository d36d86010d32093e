"""Text in the memory of another process, as the kernel itself would fetch a path from there."""

from __future__ import annotations

import ctypes
import errno
import mmap

from fserr_bpf.kernel.libc import check, failure, libc
from fserr_bpf.tasks.looking import looking

PATH_MAX = 4096  # include/uapi/linux/limits.h, with the NUL
_USER_END = 1 << 63


class _Iovec(ctypes.Structure):
    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


libc.process_vm_readv.argtypes = (
    ctypes.c_int,
    *(ctypes.POINTER(_Iovec), ctypes.c_ulong) * 2,
    ctypes.c_ulong,
)
libc.process_vm_readv.restype = ctypes.c_ssize_t


def text_at(tid: int, address: int) -> bytes:
    """The NUL-terminated text at ``address`` in the task's memory, without the NUL.

    As getname_flags() of fs/namei.c: OSError EFAULT for memory that is not there, ENAMETOOLONG
    if the first 4096 bytes have no NUL. PrivilegeError if the kernel allows no reading
    (yama's ptrace_scope=3), ProcessLookupError if the task is gone. Waits as long as the
    memory is withheld, by a file server or with userfaultfd(2).
    """
    text = b""
    while len(text) < PATH_MAX:
        # to the end of the page: the next one may not be there, and need not
        size = min(PATH_MAX - len(text), mmap.PAGESIZE - address % mmap.PAGESIZE)
        piece = _read(tid, address, size)
        before, nul, _ = piece.partition(b"\0")
        text += before
        if nul:
            return text
        address += size
    raise failure(errno.ENAMETOOLONG)


def _read(tid: int, address: int, size: int) -> bytes:
    """``size`` bytes, all in one page."""
    if address >= _USER_END:  # the vsyscall page could be read, but not by the kernel for a user
        raise failure(errno.EFAULT)
    buffer = ctypes.create_string_buffer(size)
    ours = _Iovec(ctypes.addressof(buffer), size)
    theirs = _Iovec(address, size)
    with looking("the memory"):
        got = check(libc.process_vm_readv(tid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))
    if got != size:
        raise failure(errno.EFAULT)
    return buffer.raw
