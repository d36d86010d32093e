"""A socket that gives every reader the messages from when it came on.

A reader connects, writes one line with the format that it wants (``json``, ``msgpack`` or ``raw``),
and reads. One that is slow loses messages alone. The thread sleeps while nothing happens.
"""

from __future__ import annotations

import contextlib
import grp
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct

from fserr_bpf.errors import UsageError
from fserr_bpf.model.event import Lost, OverflowEvent
from fserr_bpf.model.state import StateChange
from fserr_bpf.outputs.classes import class_of
from fserr_bpf.outputs.formats import FORMATS, Format
from fserr_bpf.outputs.schema import Message
from fserr_bpf.service.backlog import Backlog
from fserr_bpf.service.description import EventSocket
from fserr_bpf.service.output import OutputState

READERS_MOST = 64
"""Connections at a time."""
SPOKEN = tuple(name for name in FORMATS if name != "text")
_LINE = 16  # bytes of the reader's line at most
_PAUSE = 1.0  # seconds
_UCRED = Struct("=iII")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h
_GROUPS = 256  # as many as Python's getsockopt() has room for


@dataclass
class _Reader:
    """A connection; ``form`` is None until it has said which."""

    connection: socket.socket
    backlog: Backlog
    form: Format | None = None
    line: bytes = b""
    rest: bytes = b""  # of what is being written
    taken: list[Message] = field(default_factory=list)


class SocketOutput:
    """Listens at once, answers once started. Raises UsageError for what cannot be had.

    As `service.output.Output`, but that each reader has a queue of its own.
    """

    def __init__(self, spec: EventSocket, notify: Callable[[], None]) -> None:
        self.name = spec.name
        self._spec = spec
        self._notify = notify
        self._lock = threading.Lock()
        self._readers: dict[int, _Reader] = {}
        self._news: list[str] = []
        self._ending = False
        self._sent = self._lost = self._refused = 0
        self._states: dict[object, StateChange] = {}
        self._listener, self._group = _listen(spec)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        for descriptor in (self._listener.fileno(), self._wake):
            self._poll.register(descriptor, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    # -- for the monitor's thread ------------------------------------------------------

    def give(self, message: Message) -> None:
        """To all readers; a state is also for those that come later."""
        with self._lock:
            if isinstance(message, StateChange):
                self._states[message.state.dev] = message
            if not self._readers or class_of(message) not in self._spec.queueing.classes:
                return
            for reader in self._readers.values():
                if reader.form and not reader.backlog.put(message):
                    self._lost += 1
        os.eventfd_write(self._wake, 1)

    def reopen(self) -> None:
        """There is nothing to be opened again."""

    def news(self) -> list[str]:
        """Messages since the last call."""
        with self._lock:
            news, self._news = self._news, []
            return news

    def state(self) -> OutputState:
        """Of all readers together; ``failures`` are those that were refused."""
        with self._lock:
            waiting = sum(reader.backlog.messages for reader in self._readers.values())
            return OutputState(self.name, waiting, self._sent, self._lost, self._refused, "")

    def close(self, _seconds: float = 0.0) -> None:
        """Readers see the end behind what they have got."""
        self._ending = True
        with contextlib.suppress(OSError):
            os.unlink(self._spec.path)
        if self._thread.ident is None:
            self._listener.close()
            return
        os.eventfd_write(self._wake, 1)

    # -- the thread --------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif (reader := self._readers.get(descriptor)) and not self._listen_to(reader):
                    self._drop(descriptor)
            for descriptor, reader in list(self._readers.items()):
                try:
                    waits = self._write(reader)
                except OSError:  # it has gone
                    self._drop(descriptor)
                    continue
                self._poll.modify(descriptor, select.POLLIN | (select.POLLOUT if waits else 0))
        for descriptor in list(self._readers):
            self._drop(descriptor)
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:  # no descriptor is left, and the reader goes on waiting
            self._refuse(error.strerror or str(error))
            time.sleep(_PAUSE)
            return
        connection.setblocking(False)
        why = ""
        if len(self._readers) >= READERS_MOST:
            why = f"there are {READERS_MOST} readers already"
        elif not self._is_allowed(connection):
            why = "a user is not allowed to read"
        if why:
            connection.close()
            self._refuse(why)
            return
        queueing = self._spec.queueing
        with self._lock:
            backlog = Backlog(queueing.queue, queueing.drop)
            self._readers[connection.fileno()] = _Reader(connection, backlog)
        self._poll.register(connection, select.POLLIN)

    def _refuse(self, why: str) -> None:
        with self._lock:
            if not self._refused:
                self._news.append(f"{self.name}: {why}; further refusals are only counted")
            self._refused += 1
        self._notify()

    def _is_allowed(self, connection: socket.socket) -> bool:
        """By whom the kernel says that it is: root, our user, or one of the group."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, gid = _UCRED.unpack(credentials)
        try:
            groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _GROUPS)
        except OSError:  # ERANGE: it is in more of them
            groups = b""
        others = memoryview(groups).cast("I").tolist()
        return uid in (0, os.geteuid()) or self._group in (gid, *others)

    def _listen_to(self, reader: _Reader) -> bool:
        """What it says, which is a line at the beginning; False if that is the end."""
        try:
            said = reader.connection.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if reader.form or not said:
            return bool(said)
        reader.line += said
        line, end, _ = reader.line.partition(b"\n")
        if not end:
            return len(line) <= _LINE
        if line.decode("ascii", "replace") not in SPOKEN:
            return False
        with self._lock:  # from now on it gets everything
            reader.form = FORMATS[line.decode()]
            for state in self._states.values():
                if reader.form.encode_more:
                    reader.backlog.put(state)
        return True

    def _write(self, reader: _Reader) -> bool:
        """As much as it has room for; whether more waits. Raises OSError if it has gone."""
        while True:
            if not reader.rest:
                with self._lock:
                    taken = reader.backlog.take(1)
                if not taken or not reader.form:
                    return False
                reader.rest = _encoded(taken[0], reader.form)
            try:
                reader.rest = reader.rest[reader.connection.send(reader.rest) :]
            except BlockingIOError:
                return True
            if not reader.rest:
                with self._lock:
                    self._sent += 1

    def _drop(self, descriptor: int) -> None:
        with self._lock:
            reader = self._readers.pop(descriptor)
        self._poll.unregister(descriptor)
        reader.connection.close()


def _encoded(message: Message, form: Format) -> bytes:
    """Where a format has events only, a loss is its overflow, and a state is nothing."""
    if not isinstance(message, StateChange | Lost):
        return form.encode(message)
    if form.encode_more:
        return form.encode_more(message)
    return form.encode(OverflowEvent(time_ns=message.time_ns)) if isinstance(message, Lost) else b""


def _listen(spec: EventSocket) -> tuple[socket.socket, int]:
    """The socket, and the group whose members may connect."""
    group = os.getegid()
    if spec.group is not None:
        try:
            group = grp.getgrnam(spec.group).gr_gid
        except KeyError:
            raise UsageError(f"no such group: {spec.group}", "create it or name another") from None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listener, spec.path)
        if group != os.getegid():
            os.chown(spec.path, -1, group)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"{spec.path}: {error.strerror}", "name another socket") from error
    return listener, group


def _bind(listener: socket.socket, path: str) -> None:
    """In place of the socket of a run that was killed; for owner and group alone."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    before = os.umask(0o117)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
