"""The C library, for what Python's standard library lacks, and how it tells of errors."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def failure(code: int, path: str | None = None) -> OSError:
    """The OSError of an errno, of the subclass that Python has for it."""
    return OSError(code, os.strerror(code), path)


def check(result: int, path: str | None = None) -> int:
    """``result`` of a call, or where that is -1 OSError with the errno that it has left."""
    if result == -1:
        raise failure(ctypes.get_errno(), path)
    return result


def syscall(number: int, *arguments: object) -> int:
    """A system call by number; integers are passed as long. Raises OSError."""
    converted = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return check(int(libc.syscall(ctypes.c_long(number), *converted)))
