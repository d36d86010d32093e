"""The guardians: a client must not wait for ever for a supervisor that was killed.

Two processes hold the write ends of the clients' pipes and do nothing until the supervisor has
ended. If that failed, one of them writes a FAN_Q_OVERFLOW into each pipe, which means that events
are missing from here on, and a line to standard error. Two, because a supervisor and one guardian
may be killed at once. A guardian that dies, or takes no more pipes, is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
from collections.abc import Mapping
from typing import NoReturn, Protocol
from weakref import WeakKeyDictionary

from fserr_bpf.children.inherited import keep_only
from fserr_bpf.exec.lines import ErrorLines
from fserr_bpf.exec.loop import Loop

_MESSAGE = 256  # an overflow event is 24 to 32 bytes
_WELL = b"."  # a message of a supervisor that ends as it should
_TOLD = b"."  # in the lock
_STDERR = 2


class Pipe(Protocol):
    """A channel whose client is to be told."""

    def write_end(self) -> int:
        """Its descriptor, -1 once it is closed."""


class Lock:
    """Which guardian tells the clients, and whether it has: the file of a lock and of a byte.

    The lock is the process's (fcntl(2)): the next one has it when that is killed.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("guardians")

    def take(self) -> bool:
        """Wait until no other one is at it; False if there is nothing left to do."""
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        return not os.pread(self.fd, len(_TOLD), 0)

    def done(self) -> None:
        """All clients have been told."""
        os.pwrite(self.fd, _TOLD, 0)


class _Guardian:
    """One process, as the supervisor sees it; ``ours`` if it is a child of ours."""

    def __init__(self, pid: int, end: socket.socket, *, ours: bool) -> None:
        self.pid = pid
        self.end = end
        self._ours = ours
        end.setblocking(False)

    def close(self) -> None:
        """Make sure that it has ended, and leave no zombie."""
        self.end.close()
        with contextlib.suppress(ProcessLookupError):  # it died, and somebody else has waited
            os.kill(self.pid, signal.SIGKILL)
        if self._ours:
            os.waitpid(self.pid, 0)


class Guardians:
    """All of them, for the supervisor; the first is the process ``pid`` behind ``end``."""

    def __init__(self, pid: int, end: socket.socket, lock: Lock) -> None:
        self._guardians: list[_Guardian] = [_Guardian(pid, end, ours=False)]
        self._lock = lock
        self._held: WeakKeyDictionary[Pipe, bytes] = WeakKeyDictionary()
        self._loop: Loop | None = None
        self._lines: ErrorLines | None = None

    def watch(self, loop: Loop, lines: ErrorLines) -> None:
        """Make the second one, and from now on replace those that die, and say so.

        Raises OSError.
        """
        self._loop, self._lines = loop, lines
        self._watch_end(self._guardians[0])
        self._add()

    def hold(self, pipe: Pipe, overflow: bytes) -> None:
        """Have the event ``overflow`` written to a pipe if we fail."""
        self._held[pipe] = overflow
        for guardian in list(self._guardians):
            try:
                socket.send_fds(guardian.end, [overflow], [pipe.write_end()])
            except BlockingIOError:
                self._replace(guardian, "does not respond")
            except OSError:
                self._replace(guardian, "died")

    def dismiss(self) -> None:
        """We end as we should."""
        for guardian in self._guardians:
            with contextlib.suppress(OSError):  # it has gone: then there is nobody to tell
                guardian.end.send(_WELL)

    def _watch_end(self, guardian: _Guardian) -> None:
        if self._loop:
            self._loop.add(guardian.end.fileno(), 0, lambda _: self._replace(guardian, "died"))

    def _replace(self, guardian: _Guardian, why: str) -> None:
        if self._loop is None or self._lines is None:
            return
        self._loop.remove(guardian.end.fileno())
        self._guardians.remove(guardian)
        guardian.close()
        self._lines.write(f"guardian {guardian.pid} {why}: another one takes its place")
        try:
            self._add()
        except OSError as error:
            self._lines.write(
                f"no guardian: {error.strerror}; raise the limits of files and processes"
            )

    def _add(self) -> None:
        """Fork another one, which has all pipes from us."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        ended = os.pidfd_open(supervisor)
        held = {pipe.write_end(): overflow for pipe, overflow in self._held.items()}
        held.pop(-1, None)
        try:
            pid = os.fork()
            if pid == 0:
                _become_guardian(supervisor, ended, theirs, self._lock, held)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(ended)
            theirs.close()
        self._guardians.append(_Guardian(pid, ours, ours=True))
        self._watch_end(self._guardians[-1])


def _become_guardian(
    supervisor: int, ended: int, end: socket.socket, lock: Lock, held: Mapping[int, bytes]
) -> NoReturn:
    """Be the child, with nothing of the supervisor's but the pipes."""
    try:
        keep_only(ended, end.fileno(), lock.fd, _STDERR, *held)
        guard(supervisor, ended, end, lock, held)
    finally:
        os._exit(0)


def guard(
    supervisor: int, ended: int, end: socket.socket, lock: Lock, held: Mapping[int, bytes]
) -> None:
    """Wait until ``ended`` is readable, the supervisor's pidfd; its `Guardians` sends to ``end``.

    ``held`` are pipes and what is written to them. Returns when all has been told.
    """
    guarded = _Guarded(end, held)
    while ended not in guarded.ready(ended, end.fileno()):
        guarded.receive()
    while guarded.receive():
        pass
    how = _end_of(supervisor)
    if guarded.well or not lock.take():
        return
    guarded.tell()
    with ErrorLines() as lines:
        lines.write(
            f"supervisor {supervisor} died{how}: event delivery has stopped and fanotify calls "
            "fail with ENOSYS; restart the client"
        )
        while guarded.untold:
            guarded.ready()
    lock.done()


class _Guarded:
    """The pipes whose readers are still there; ``untold`` those that are still to be written."""

    def __init__(self, end: socket.socket, held: Mapping[int, bytes]) -> None:
        self.untold: set[int] = set()
        self.well = False
        self._pipes = dict(held)
        self._end = end
        self._end.setblocking(False)
        self._poll = select.poll()
        for pipe in held:
            self._poll.register(pipe, 0)  # POLLERR needs no asking for

    def ready(self, *descriptors: int) -> set[int]:
        """Wait; which of ``descriptors`` is readable. Pipes without readers are let go."""
        for descriptor in descriptors:
            self._poll.register(descriptor, select.POLLIN)
        found = dict(self._poll.poll())
        for pipe in found.keys() & self._pipes.keys():
            if found[pipe] & select.POLLERR:
                self._poll.unregister(pipe)
                os.close(pipe)
                del self._pipes[pipe]
                self.untold.discard(pipe)
            elif pipe in self.untold:
                self._write(pipe)
        return found.keys() & set(descriptors)

    def receive(self) -> bool:
        """Take a message of the supervisor; whether there was one."""
        try:
            message, pipes, _, _ = socket.recv_fds(self._end, _MESSAGE, 1)
        except OSError:  # none, or its end is closed
            return False
        self.well |= message == _WELL
        for pipe in pipes:
            self._pipes[pipe] = message
            self._poll.register(pipe, 0)
        return bool(message)

    def tell(self) -> None:
        """Write to all pipes; those that are full stay `untold` until there is room."""
        self._poll = select.poll()
        self.untold = set(self._pipes)
        for pipe in self._pipes:
            self._write(pipe)

    def _write(self, pipe: int) -> None:
        try:
            os.write(pipe, self._pipes[pipe])
        except BlockingIOError:
            self._poll.register(pipe, select.POLLOUT)
            return
        except BrokenPipeError:
            pass  # its last reader has gone meanwhile
        self.untold.remove(pipe)


def _end_of(supervisor: int) -> str:
    """How it ended, if it is a child of ours; waits for it."""
    try:
        _, status = os.waitpid(supervisor, 0)
    except ChildProcessError:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f" ({signal.Signals(-code).name if code < 0 else f'status {code}'})"
