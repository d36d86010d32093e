"""System calls of a client taken over: the seccomp filter and its listener.

The kernel's side is kernel/seccomp.c: seccomp_do_user_notification() makes the caller
wait, seccomp_notify_ioctl() is what the listener does.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError, KernelError, PrivilegeError
from fserr_bpf.kernel.libc import failure, libc, syscall
from fserr_bpf.kernel.privileges import set_no_new_privs
from fserr_bpf.tasks.descriptors import descriptor_identity
from fserr_bpf.tasks.filter import Rule, program
from fserr_bpf.uapi.seccomp import (
    NOTIF,
    NOTIF_ADDFD,
    NOTIF_RESP,
    NOTIF_SIZES,
    NR_SECCOMP,
    SECCOMP_ADDFD_FLAG_SEND,
    SECCOMP_ADDFD_FLAG_SETFD,
    SECCOMP_DATA,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    SECCOMP_GET_NOTIF_SIZES,
    SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_RECV,
    SECCOMP_IOCTL_NOTIF_SEND,
    SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    SECCOMP_SET_MODE_FILTER,
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
    SOCK_FILTER,
)

_SIG_BLOCK, _SIG_SETMASK = 0, 2
_SIGSET_SIZE = 128
_ALL_SIGNALS = b"\xff" * _SIGSET_SIZE

# The caller was killed, or left the call because of a signal: ESRCH is what an ADDFD gets
# that was under way. EINPROGRESS: it has its answer, and is about to go.
_NOBODY_WAITS = (errno.ENOENT, errno.ESRCH, errno.EINPROGRESS)
# ADDFD: what is wrong with the listener's user, not with the client.
_MISUSED = (errno.EBADF, errno.EBUSY, errno.EINVAL)


class Notification(NamedTuple):
    """One call that waits for its answer.

    ``tid`` is the calling thread as the listener's pid namespace knows it, ``syscall`` the
    number, ``args`` the six registers, each an unsigned 64-bit number.
    """

    id: int
    tid: int
    syscall: int
    args: tuple[int, ...]


class _Program(ctypes.Structure):
    """``struct sock_fprog`` of include/uapi/linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class _Left(NamedTuple):
    """A descriptor that a client got without an answer to its call."""

    number: int
    identity: tuple[int, int]


def install_filter(rules: Sequence[Rule]) -> int:
    """Filter the calling thread, and what it forks and execs: stop what ``rules`` say.

    Returns the listener, close-on-exec. There is no way back: without a listener the stopped
    calls fail with ENOSYS. Raises KernelError if the kernel has no user notification or
    the thread has a listener already, PrivilegeError if the kernel refuses.
    """
    _check_sizes()
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW
    # flags are judged before the program is looked at
    killable = flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    if _seccomp(SECCOMP_SET_MODE_FILTER, killable, None) == -errno.EFAULT:
        flags = killable
    code = program(rules)
    filtering = ctypes.byref(_Program(len(code) // SOCK_FILTER.size, code))
    listener = _seccomp(SECCOMP_SET_MODE_FILTER, flags, filtering)
    if listener == -errno.EACCES:  # no CAP_SYS_ADMIN
        set_no_new_privs()
        listener = _seccomp(SECCOMP_SET_MODE_FILTER, flags, filtering)
    if listener < 0:
        raise _refusal(-listener)
    return listener


def _seccomp(operation: int, flags: int, argument: object) -> int:
    """The result of seccomp(2), or minus its errno."""
    try:
        return syscall(NR_SECCOMP, operation, flags, argument)
    except OSError as error:
        return -(error.errno or 0)


def _check_sizes() -> None:
    """KernelError unless the kernel's structures are the ones that we know."""
    buffer = ctypes.create_string_buffer(NOTIF_SIZES.size)
    result = _seccomp(SECCOMP_GET_NOTIF_SIZES, 0, buffer)
    if result < 0:
        raise KernelError(
            f"seccomp(2): no user notification ({os.strerror(-result)})",
            "use Linux 5.9 or later with CONFIG_SECCOMP_FILTER",
        )
    sizes = NOTIF_SIZES.unpack(buffer.raw)
    known = (NOTIF.size, NOTIF_RESP.size, SECCOMP_DATA.size)
    if sizes != known:
        raise KernelError(
            f"seccomp(2): notifications of {sizes} bytes, known are {known}",
            "use a fserr-bpf that knows this kernel",
        )


def _refusal(code: int) -> FserrError:
    cause = failure(code)
    error: FserrError
    if code == errno.EBUSY:
        error = KernelError(
            "seccomp(2): this process already has a listener, and the kernel allows only one",
            "run it outside the container runtime or the fserr-bpf exec whose listener that is",
        )
    elif code in (errno.EACCES, errno.EPERM):
        error = PrivilegeError(f"seccomp(2): {cause.strerror}", "run as root (CAP_SYS_ADMIN)")
    else:
        error = KernelError(
            f"seccomp(2): {cause.strerror}", "use Linux 5.9 or later with CONFIG_SECCOMP_FILTER"
        )
    error.__cause__ = cause
    return error


class Listener(Closing):
    """The supervisor's end of a filter; owns the descriptor ``fd``.

    Every answer says whether the caller still waited. Below 5.19 any signal takes a caller
    out of its call, and with SA_RESTART the call is made anew; since then only a fatal one does,
    once the call was received. Below 5.19 that can be wrong: a caller that a signal has just
    woken leaves without the answer, though the kernel took it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._sends = self._knows_send()
        self._left: dict[int, _Left] = {}
        try:
            # the caller wakes up on our processor at once: fewer microseconds per call
            self._ioctl(SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before 6.6
                raise

    def close(self) -> None:
        """Close it: calls that wait, and all later ones, fail with ENOSYS."""
        os.close(self._fd)

    def fileno(self) -> int:
        """To poll: EPOLLIN when a call waits, EPOLLHUP when no filtered task is left.

        Before 6.11 a task is left until its parent has waited for it.
        """
        return self._fd

    def receive(self) -> Notification | None:
        """The next call; never blocks. None: there is none, or its caller was killed or
        interrupted meanwhile.
        """
        if not any(events & select.POLLIN for _, events in self._poll.poll(0)):
            return None
        # A caller that leaves between poll and ioctl has raised the kernel's count of calls
        # and does not lower it again, so the ioctl finds nothing, but does not wait.
        buffer = bytearray(NOTIF.size)
        if not self._reaches(SECCOMP_IOCTL_NOTIF_RECV, buffer):
            return None
        call, tid, _, syscall, _, _, *args = NOTIF.unpack(buffer)
        return Notification(call, tid, syscall, tuple(args))

    def waits(self, call: Notification) -> bool:
        """Whether the caller still waits.

        If so, whatever was read before of its memory and in /proc by its tid was its own.
        """
        return self.waits_for(call.id)

    def waits_for(self, call_id: int) -> bool:
        """The same, of the ``id`` of a call."""
        return self._reaches(SECCOMP_IOCTL_NOTIF_ID_VALID, bytearray(call_id.to_bytes(8, "little")))

    def answer(self, call: Notification, result: int) -> bool:
        """Let the call return ``result``, minus an errno for an error; False: nobody waits."""
        value, error = (result, 0) if result >= 0 else (0, result)
        return self._send(call, value, error, 0)

    def let_through(self, call: Notification) -> bool:
        """Let the kernel do the call; False: nobody waits."""
        return self._send(call, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)

    def give(self, call: Notification, fd: int, *, cloexec: bool) -> bool:
        """Let the call return a descriptor of its own of the file that ``fd`` is.

        False: the client did not get it. Either nobody waits, or it has no room for
        one more (EMFILE and the like), which is then what its call returned.
        """
        if not self._sends:
            return self._give_in_two_steps(call, fd, cloexec)
        try:
            self._add(call, fd, cloexec, SECCOMP_ADDFD_FLAG_SEND)
        except OSError as error:
            return self._not_given(call, error)
        return True

    def replace(self, call: Notification, fd: int, number: int, *, cloexec: bool) -> bool:
        """Make ``number`` of the client's descriptors the file that ``fd`` is; the call goes on.

        False: nobody waits, or the client's limit is below that number now.
        """
        try:
            return self._replace(call, fd, cloexec, number) is not None
        except OSError as error:
            if error.errno in _NOBODY_WAITS:
                return False
            raise

    def _give_in_two_steps(self, call: Notification, fd: int, cloexec: bool) -> bool:
        """Before 5.14. A caller that is interrupted between the steps has a descriptor that it
        does not know; when it makes the call again that number is what it gets. One that was
        woken just before the second step keeps one, see above: nothing reports it.
        """
        left = self._left.pop(call.tid, None)
        number = None
        try:
            if left is not None and descriptor_identity(call.tid, left.number) == left.identity:
                number = self._replace(call, fd, cloexec, left.number)
            if number is None:
                number = self._add(call, fd, cloexec, 0)
        except OSError as error:
            if left is not None:
                self._left[call.tid] = left
            return self._not_given(call, error)
        if self.answer(call, number):
            return True
        status = os.fstat(fd)
        self._left[call.tid] = _Left(number, (status.st_dev, status.st_ino))
        return False

    def _replace(self, call: Notification, fd: int, cloexec: bool, number: int) -> int | None:
        """Make the client's ``number`` the file; None if its limit is below that now."""
        try:
            return self._add(call, fd, cloexec, SECCOMP_ADDFD_FLAG_SETFD, number)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.EBUSY):
                return None
            raise

    def _add(self, call: Notification, fd: int, cloexec: bool, flags: int, number: int = 0) -> int:
        """The client's number of its new descriptor. Raises OSError."""
        new_flags = os.O_CLOEXEC if cloexec else 0
        request = bytearray(NOTIF_ADDFD.pack(call.id, flags, fd, number, new_flags))
        # A signal here could make the client's call return 0: the kernel forgets the
        # descriptor then, but not that the call was answered.
        with _signals_blocked():
            return self._ioctl(SECCOMP_IOCTL_NOTIF_ADDFD, request)

    def _not_given(self, call: Notification, error: OSError) -> bool:
        assert error.errno is not None
        if error.errno in _MISUSED:
            raise error
        if error.errno not in _NOBODY_WAITS:
            self.answer(call, -error.errno)
        return False

    def _send(self, call: Notification, value: int, error: int, flags: int) -> bool:
        response = bytearray(NOTIF_RESP.pack(call.id, value, error, flags))
        return self._reaches(SECCOMP_IOCTL_NOTIF_SEND, response)

    def _knows_send(self) -> bool:
        """Whether ADDFD can answer too; flags are judged before the call is looked for."""
        request = NOTIF_ADDFD.pack(0, SECCOMP_ADDFD_FLAG_SEND, self._fd, 0, 0)
        try:
            self._ioctl(SECCOMP_IOCTL_NOTIF_ADDFD, bytearray(request))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return error.errno == errno.ENOENT
            raise
        raise AssertionError("the kernel found a call that nobody made")

    def _reaches(self, request: int, buffer: bytearray) -> bool:
        """Do it; False if nobody waits."""
        try:
            self._ioctl(request, buffer)
        except OSError as error:
            if error.errno in _NOBODY_WAITS:
                return False
            raise
        return True

    def _ioctl(self, request: int, argument: bytearray | int) -> int:
        while True:
            try:
                return fcntl.ioctl(self._fd, request, argument)
            except InterruptedError:
                continue


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = ctypes.create_string_buffer(_SIGSET_SIZE)
    libc.pthread_sigmask(_SIG_BLOCK, _ALL_SIGNALS, before)
    try:
        yield
    finally:
        libc.pthread_sigmask(_SIG_SETMASK, before, None)
