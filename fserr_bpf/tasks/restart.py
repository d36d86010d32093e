"""Restarting another thread's system call after a signal, where a FUSE server could not.

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
import threading
from collections.abc import Callable

from fserr_bpf.kernel.libc import failure, libc

_PTRACE_PEEKUSER, _PTRACE_POKEUSER, _PTRACE_DETACH = 3, 6, 17
_PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4206, 0x4207
_WALL = 0x40000000
# offset of ax in struct user_regs_struct
_AX = 80
_ERESTARTSYS = 512

libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
libc.ptrace.restype = ctypes.c_long


class Restarting:
    """Interrupt the system call of the thread ``tid``, which ends when ``answer`` is called.

    ``answer`` has to make it return EINTR. It is called once, in a thread of ours: to trace
    a thread may take as long as an exec(2) of its process, which waits for this very
    thread to end. Where that is to be feared call `answer_now`.
    """

    def __init__(self, tid: int, answer: Callable[[], None]) -> None:
        self._tid = tid
        self._answer = answer
        self._answered = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def answer_now(self) -> None:
        """If it has no answer yet, let the program see EINTR; ``answer`` is not called later."""
        self._answer_first()

    def _answer_first(self) -> bool:
        with self._lock:
            first, self._answered = not self._answered, True
            if first:
                self._answer()
        return first

    def _run(self) -> None:
        caught = _catch(self._tid)
        in_time = self._answer_first()
        while caught:
            caught = not _release(self._tid, change=in_time)


def restart(tid: int) -> None:
    """Have a thread that waits in a system call of the kernel's own begin it anew.

    Waits until that is done; nothing happens to one that must not be traced, or has gone.
    """
    caught = _catch(tid)
    while caught:
        caught = not _release(tid, change=False)


def _catch(tid: int) -> bool:
    """Have a thread held before it is back in its program.

    False if that is not possible: it is traced already, or must not be, or has gone.
    """
    try:
        _ptrace(_PTRACE_SEIZE, tid)
        _ptrace(_PTRACE_INTERRUPT, tid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ESRCH):
            raise
        return False
    return True


def _release(tid: int, *, change: bool) -> bool:
    """Wait until it is held, turn EINTR into ERESTARTSYS and let go; or wait for its end."""
    try:
        _, status = os.waitpid(tid, _WALL)
    except ChildProcessError:
        return True
    if not os.WIFSTOPPED(status):
        return True
    try:
        if change and _ptrace(_PTRACE_PEEKUSER, tid, _AX) == -errno.EINTR:
            _ptrace(_PTRACE_POKEUSER, tid, _AX, -_ERESTARTSYS)
        # a stop without an event is the delivery of a signal, which we have to pass on
        _ptrace(_PTRACE_DETACH, tid, 0, 0 if status >> 16 else os.WSTOPSIG(status))
    except ProcessLookupError:  # killed meanwhile: its end has to be waited for
        return False
    return True


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result = int(libc.ptrace(request, tid, address, data))
    if result == -1 and (code := ctypes.get_errno()):  # -1 may be what was peeked at
        raise failure(code)
    return result
