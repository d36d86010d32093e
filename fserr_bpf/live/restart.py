"""Letting another thread's system call be restarted after a signal, as if it knew how.

A FUSE server can only answer EINTR. What the kernel's own waits return instead,
ERESTARTSYS, never reaches a program: after a stop, a freeze or a handler with SA_RESTART the
call goes on, otherwise the program sees EINTR (``arch_do_signal_or_restart()``). So the thread
is traced for the moment between its system call and its signal, and the result changed.
x86-64 only.
"""

from __future__ import annotations

import ctypes
import errno
import os

_PTRACE_PEEKUSER, _PTRACE_POKEUSER, _PTRACE_DETACH = 3, 6, 17
_PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4206, 0x4207
_WALL = 0x40000000
# offset of ax in struct user_regs_struct
_AX = 80
_ERESTARTSYS = 512

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_libc.ptrace.restype = ctypes.c_long


def catch(tid: int) -> bool:
    """Have the thread ``tid``, which waits in the kernel, held before it is back in its program.

    False if that is not possible, since it is traced already or tracing is not allowed.
    If True, let it return with EINTR and call `release` until that says True.
    """
    try:
        _ptrace(_PTRACE_SEIZE, tid)
        _ptrace(_PTRACE_INTERRUPT, tid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ESRCH):
            raise
        return False
    return True


def release(tid: int) -> bool:
    """Turn EINTR into ERESTARTSYS and let go; False while the thread is not there yet."""
    try:
        stopped, status = os.waitpid(tid, os.WNOHANG | _WALL)
    except ChildProcessError:
        return True
    if not stopped:
        return False
    if not os.WIFSTOPPED(status):  # it has died
        return True
    try:
        if _ptrace(_PTRACE_PEEKUSER, tid, _AX) == -errno.EINTR:
            _ptrace(_PTRACE_POKEUSER, tid, _AX, -_ERESTARTSYS)
        # a stop without an event is the delivery of a signal, which we have to pass on
        _ptrace(_PTRACE_DETACH, tid, 0, 0 if status >> 16 else os.WSTOPSIG(status))
    except ProcessLookupError:  # killed meanwhile: its end is to be waited for too
        return False
    return True


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result = int(_libc.ptrace(request, tid, address, data))
    code = ctypes.get_errno()
    if result == -1 and code:
        raise OSError(code, os.strerror(code))
    return result
