"""A group's descriptor as a file of a FUSE server that is the supervisor itself.

A READ or POLL of the client waits for our answer, so all that the kernel has by then is
given to it, in one read as in a group. The price is some tens of microseconds for each of
them. What differs from a fanotify descriptor:

- A thread under a debugger, or one that may not be traced, gets EINTR from a blocked read
  after every signal, also after a stop; otherwise see `fserr_bpf.live.restart`.
- FIONREAD says 0, lseek ESPIPE, a read of 0 bytes 0; the file is a regular one.
- Without its supervisor reads fail (ENOTCONN, ECONNABORTED) and poll says POLLERR.

The mount is one that the supervisor serves in the same thread that could ask for it: what is
to touch the mount goes through `FuseServer.aside`, or would wait for ever. Attributes do
not expire, but reading invalidates the access time, so stat(2) asks; statx(2) of other
fields does not.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from fserr_bpf.closing import Closing
from fserr_bpf.codec import reader
from fserr_bpf.errors import KernelError
from fserr_bpf.live.fuse import mount_fuse, open_fuse
from fserr_bpf.live.restart import Restarting
from fserr_bpf.takeover.channel import Feed
from fserr_bpf.takeover.loop import Loop
from fserr_bpf.uapi import fuse
from fserr_bpf.uapi.fuse import Opcode

_MINOR = 31  # the protocol of Linux 5.4, the last whose layouts these are
_NOFLUSH_MINOR = 35  # that of Linux 5.16
_OPEN_FLAGS = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NONSEEKABLE | fuse.FOPEN_STREAM | fuse.FOPEN_NOFLUSH
_MAX_WRITE = 4096
_MAX_PAGES = 256
_PAGE = os.sysconf("SC_PAGE_SIZE")
# A buffer that need not be aligned may take one page more than it is long.
_WHOLE_READ = (_MAX_PAGES - 1) * _PAGE
_FOREVER = 1 << 32  # seconds
_DIRECTORY, _FILE = 0o040555, 0o100600
_PATIENCE_NS = 10_000_000

# What clients ask of a channel: it waits while something is done aside.
_CHANNELS = frozenset({Opcode.READ, Opcode.POLL, Opcode.RELEASE})
_LATER = _CHANNELS | {Opcode.INTERRUPT}

# As a group: it cannot be opened through /proc, takes no responses and no ioctl but FIONREAD.
_FIXED_ANSWERS: dict[int, int] = {
    Opcode.OPEN: errno.ENXIO,
    Opcode.WRITE: errno.EINVAL,
    Opcode.IOCTL: errno.ENOTTY,
    Opcode.DESTROY: 0,
}
_UNANSWERED = (Opcode.FORGET, Opcode.BATCH_FORGET)

T = TypeVar("T")


class _Request(NamedTuple):
    opcode: int
    unique: int
    node: int
    tid: int
    body: bytes


class FuseServer(Closing):
    """The mount with the files of all exact channels.

    Raises KernelError where the kernel has no FUSE, PrivilegeError where it is not for us.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._channels: dict[int, ExactChannel] = {}
        self._last_node = fuse.FUSE_ROOT_ID
        self._opening: int | None = None
        self._closes_silently = False
        self._later: deque[_Request] = deque()
        self._restarting: set[Restarting] = set()
        # one that stays: to start a thread takes longer than to open a file
        self._helper = ThreadPoolExecutor(1)
        with ExitStack() as undo:
            undo.callback(self._helper.shutdown)
            self._device = open_fuse()
            undo.callback(os.close, self._device)
            self._mount = mount_fuse(self._device)
            undo.callback(os.close, self._mount)
            self.st_dev = self.aside(lambda: os.fstat(self._mount).st_dev)
            loop.add(self._device, select.EPOLLIN, self._ready)
            undo.pop_all()

    def close(self) -> None:
        """Serve no more; every client's descriptor is in error from now on."""
        if self._device >= 0:
            for restarting in self._restarting:
                restarting.answer_now()
            self._loop.remove(self._device)
            os.close(self._device)
            os.close(self._mount)
            self._helper.shutdown()
            self._device = -1

    def aside(self, work: Callable[[], T]) -> T:
        """Run ``work`` in another thread and answer what it asks of this mount meanwhile.

        Reads and polls of clients wait. An exception of ``work`` is raised here.
        """
        done = os.eventfd(0, os.EFD_CLOEXEC)
        helping = self._helper.submit(work)
        helping.add_done_callback(lambda _: os.eventfd_write(done, 1))
        try:
            poller = select.poll()
            poller.register(self._device, select.POLLIN)
            poller.register(done, select.POLLIN)
            while done not in (ready := dict(poller.poll())):
                self._serve_aside(ready[self._device])
        finally:
            # the callback comes last of all: until then the number is in use
            os.eventfd_read(done)
            os.close(done)
        if self._later:
            self._loop.call_at(0, self._serve_later)
        return helping.result()

    def _serve_aside(self, events: int) -> None:
        if not events & select.POLLIN:
            raise KernelError("the FUSE connection was aborted", "do without --exact")
        request = self._receive()
        if request is None:
            return
        if request.opcode in _LATER:
            self._later.append(request)
        else:
            self._serve(request)

    def _serve_later(self) -> None:
        while self._later:
            self._serve(self._later.popleft())

    # -- for the channels ------------------------------------------------------------

    def add(self, channel: ExactChannel) -> int:
        """A new file; its inode number."""
        self._last_node += 1
        self._channels[self._last_node] = channel
        return self._last_node

    def remove(self, node: int) -> None:
        """There is no such file any more."""
        self._channels.pop(node, None)

    def open(self, node: int, *, nonblocking: bool) -> int:
        """A descriptor of the file; nobody else can open it. Raises OSError."""

        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_NONBLOCK if nonblocking else 0)
        self._opening = node
        try:
            return self.aside(lambda: os.open(str(node), flags, dir_fd=self._mount))
        finally:
            self._opening = None

    def close_copy(self, descriptor: int) -> None:
        """Close a copy of a client's descriptor.

        Before 5.16 that waits for a write of the client, even to be told that closes do not
        interest us (``fuse_flush()``).
        """
        if self._closes_silently or self._device < 0:
            _close(descriptor)
        else:
            self.aside(lambda: _close(descriptor))

    def answer(self, unique: int, error: int = 0, body: bytes = b"") -> None:
        """Answer a request with an errno (positive, 0 for none) and what belongs to it."""
        size = fuse.OUT_HEADER.size + len(body)
        self._write(fuse.OUT_HEADER.pack(size, -error, unique), body)

    def wake_pollers(self, handle: int) -> None:
        """Whoever polls the file of this poll handle has to ask again."""
        body = fuse.NOTIFY_POLL_WAKEUP_OUT.pack(handle)
        size = fuse.OUT_HEADER.size + len(body)
        self._write(fuse.OUT_HEADER.pack(size, fuse.FUSE_NOTIFY_POLL, 0), body)

    def interrupt(self, unique: int, tid: int) -> None:
        """Answer EINTR, or what the kernel makes of ERESTARTSYS, to a request of ``tid``."""
        restarting = Restarting(tid, lambda: self.answer(unique, errno.EINTR))
        self._restarting.add(restarting)

        def patience_ends() -> None:
            restarting.answer_now()
            self._restarting.discard(restarting)

        self._loop.call_at(time.monotonic_ns() + _PATIENCE_NS, patience_ends)

    # -- the protocol ----------------------------------------------------------------

    def _write(self, header: bytes, body: bytes) -> None:
        try:
            os.writev(self._device, (header, body))
        except FileNotFoundError:  # nobody waits for it any more
            return

    def _receive(self) -> _Request | None:
        try:
            data = os.read(self._device, fuse.FUSE_MIN_READ_BUFFER)
        except (BlockingIOError, FileNotFoundError):  # taken back before we came
            return None
        _, opcode, unique, node, _, _, tid, _ = fuse.IN_HEADER.unpack_from(data)
        return _Request(opcode, unique, node, tid, data[fuse.IN_HEADER.size :])

    def _ready(self, events: int) -> None:
        if not events & select.EPOLLIN:
            self._aborted()
            return
        request = self._receive()
        if request is not None:
            self._serve(request)

    def _aborted(self) -> None:
        """Somebody aborted the connection: no descriptor of a client works any more."""
        self.close()
        for channel in list(self._channels.values()):
            channel.released()

    def _serve(self, request: _Request) -> None:
        opcode, unique, node, _, body = request
        if opcode in _CHANNELS:
            self._serve_file(request)
        elif opcode == Opcode.INTERRUPT:
            (interrupted,) = fuse.INTERRUPT_IN.unpack_from(body)
            for channel in self._channels.values():
                channel.interrupted(interrupted)
        elif opcode == Opcode.INIT:
            self._closes_silently = _kernel_minor(body) >= _NOFLUSH_MINOR
            limits = (0, 0, _MAX_WRITE, 1, _MAX_PAGES, 0)
            version = (fuse.FUSE_KERNEL_VERSION, _MINOR)
            reply = fuse.INIT_OUT.pack(*version, 0, fuse.FUSE_MAX_PAGES, *limits, bytes(32))
            self.answer(unique, 0, reply)
        elif opcode == Opcode.LOOKUP:
            self._look_up(unique, body.split(b"\0")[0])
        elif opcode == Opcode.GETATTR:
            self.answer(unique, 0, fuse.ATTR_OUT.pack(_FOREVER, 0, 0) + _attributes(node))
        elif opcode == Opcode.STATFS:
            self.answer(unique, 0, fuse.STATFS_OUT.pack(0, 0, 0, 0, 0, _PAGE, 255, _PAGE, 0, b""))
        elif opcode == Opcode.OPEN and node == self._opening:
            self.answer(unique, 0, fuse.OPEN_OUT.pack(node, _OPEN_FLAGS, 0))
        elif opcode not in _UNANSWERED:
            self.answer(unique, _FIXED_ANSWERS.get(opcode, errno.ENOSYS))

    def _serve_file(self, request: _Request) -> None:
        opcode, unique, node, tid, body = request
        channel = self._channels.get(node)
        if opcode == Opcode.RELEASE:
            self.answer(unique)
            if channel is not None:
                channel.released()
        elif channel is None:  # closed by us
            self.answer(unique, errno.EIO)
        elif opcode == Opcode.READ:
            _, _, size, _, _, flags, _ = fuse.READ_IN.unpack_from(body)
            channel.read(PendingRead(unique, tid, size), wait=not flags & os.O_NONBLOCK)
        else:
            _, handle, flags, _ = fuse.POLL_IN.unpack_from(body)
            wanted = flags & fuse.FUSE_POLL_SCHEDULE_NOTIFY
            channel.poll(unique, handle if wanted else None)

    def _look_up(self, unique: int, name: bytes) -> None:
        node = int(name) if name.isdigit() else 0
        if node in self._channels:
            entry = fuse.ENTRY_OUT.pack(node, 0, 0, _FOREVER, 0, 0)
            self.answer(unique, 0, entry + _attributes(node))
        else:
            self.answer(unique, errno.ENOENT)


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError as error:  # it is closed all the same
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise


def _kernel_minor(init: bytes) -> int:
    major, minor, _, _ = fuse.INIT_IN.unpack_from(init)
    if major != fuse.FUSE_KERNEL_VERSION or minor < _MINOR:
        raise KernelError(f"FUSE protocol {major}.{minor} is not known", "do without --exact")
    return int(minor)


def _attributes(node: int) -> bytes:
    mode = _DIRECTORY if node == fuse.FUSE_ROOT_ID else _FILE
    return fuse.ATTR.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, _PAGE, 0)


class PendingRead(NamedTuple):
    """A read(2) of ``size`` bytes by the thread ``tid`` that has no answer yet."""

    unique: int
    tid: int
    size: int


class ExactChannel(Closing):
    """A channel (see `Channel`) that is a file of ``server``.

    ``gone`` is called when the last descriptor of it is closed. ``nonblocking`` sets
    O_NONBLOCK for the client.
    """

    def __init__(
        self, server: FuseServer, feed: Feed, gone: Callable[[], None], *, nonblocking: bool
    ) -> None:
        self._server = server
        self._feed = feed
        self._gone = gone
        self._nonblocking = nonblocking
        self._node = server.add(self)
        self.identity = server.st_dev, self._node
        self._waiting: deque[PendingRead] = deque()
        # what to wake when there is more, if somebody polls
        self._poll_handle: int | None = None

    def close(self) -> None:
        """Waiting reads and all later ones fail (EIO)."""
        self._server.remove(self._node)
        while self._waiting:
            self._server.answer(self._waiting.popleft().unique, errno.EIO)

    def client_end(self) -> int:
        """The client's descriptor, once; the caller hands it back to `given`. Raises OSError."""
        return self._server.open(self._node, nonblocking=self._nonblocking)

    def given(self, end: int) -> None:
        """Close our copy of the client's descriptor."""
        self._server.close_copy(end)

    def before_insert(self) -> None:
        """All that is unread is in the queue."""

    def fed(self) -> None:
        """Answer who waits for it, and wake who polls."""
        queue = self._feed.queue
        while self._waiting and len(queue):
            self._answer(self._waiting.popleft())
        if self._poll_handle is not None and len(queue):
            self._server.wake_pollers(self._poll_handle)
            self._poll_handle = None

    # -- called by the server --------------------------------------------------------

    def read(self, request: PendingRead, *, wait: bool) -> None:
        """As ``fanotify_read()``."""
        self._feed.pump()
        if wait and not len(self._feed.queue):
            self._waiting.append(request)
        else:
            self._answer(request)

    def _answer(self, request: PendingRead) -> None:
        # The kernel goes on to read after a request that was filled: never fill the largest.
        room = request.size - (request.size > _WHOLE_READ)
        try:
            data = reader.read(self._feed.queue, room)
        except OSError as error:
            self._server.answer(request.unique, error.errno or errno.EIO)
        else:
            self._server.answer(request.unique, 0, data)

    def poll(self, unique: int, handle: int | None) -> None:
        """As ``fanotify_poll()``; ``handle`` if whoever asks will wait for more."""
        self._feed.pump()
        if handle is not None:
            self._poll_handle = handle
        events = select.POLLIN | select.POLLRDNORM if len(self._feed.queue) else 0
        self._server.answer(unique, 0, fuse.POLL_OUT.pack(events, 0))

    def interrupted(self, unique: int) -> None:
        """A signal has come for a read; nothing if it has its answer already."""
        for request in self._waiting:
            if request.unique == unique:
                self._waiting.remove(request)
                self._server.interrupt(request.unique, request.tid)
                return

    def released(self) -> None:
        """The last descriptor was closed."""
        self.close()
        self._gone()
