"""A group's descriptor as a pipe in packet mode, which the kernel itself reads from.

Reads, waits, signals, stops and debuggers behave as the kernel's own, because they are.
What differs from a fanotify descriptor:

- A read gives one event, however large its buffer; one that is too small loses the rest
  of the event instead of failing with EINVAL.
- An event is there some milliseconds after the error (`HOLD_NS`), not at once.
- FIONREAD is the number of unread bytes of at most `SLOTS` events.
- A poll for writing succeeds; the descriptor can be opened again through /proc.
- What the client writes into its descriptor comes back to it; a group fails it with EINVAL.
- While an unread event merges there is a moment in which it cannot be read.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fserr_bpf.closing import Closing
from fserr_bpf.codec.fanotify import encode
from fserr_bpf.exec.channel import Feed
from fserr_bpf.exec.loop import Loop, Timer
from fserr_bpf.kernel import procfs
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.queue import Queued

SLOTS = 64
"""Unread events in the pipe, if the kernel lets it be so large; more wait in the queue."""

HOLD_NS = 4_000_000
"""How long an error waits for those that merge with it: clients that read once count on it."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Packet(NamedTuple):
    data: bytes
    queued: Queued


class PipeChannel(Closing):
    """A channel (see `Channel`) on a pipe; ``gone`` is called when its last reader is.

    ``nonblocking`` sets O_NONBLOCK for the client. Raises OSError as pipe(2).
    """

    def __init__(
        self,
        feed: Feed,
        loop: Loop,
        gone: Callable[[], None],
        *,
        nonblocking: bool,
        hold_ns: int = HOLD_NS,
    ) -> None:
        self._feed = feed
        self._loop = loop
        self._gone = gone
        self._hold_ns = hold_ns
        # As a group's, and also a writer: it never sees the end of the file.
        self._end_flags = os.O_RDWR | (os.O_NONBLOCK if nonblocking else 0)
        reader, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT)
        try:
            # kept until the client has its own: without a reader the pipe would be at its end
            self._client_end: int | None = self._open_end(reader)
        except OSError:
            os.close(self._write_end)
            raise
        finally:
            os.close(reader)
        _resize(self._write_end)
        status = os.fstat(self._write_end)
        self.identity = status.st_dev, status.st_ino
        # All that is unread is among the last that were sent, as many as fit.
        slots = fcntl.fcntl(self._write_end, fcntl.F_GETPIPE_SZ) // _PAGE
        self._sent: deque[_Packet] = deque(maxlen=slots)
        # When each event of the queue may be sent, in its order; CLOCK_MONOTONIC ns.
        self._due: deque[int] = deque()
        self._timer: Timer | None = None
        self._full = False
        loop.add(self._write_end, 0, self._ready)

    def close(self) -> None:
        """Close our end; unread events stay in the pipe."""
        if self._timer is not None:
            self._timer.cancel()
        if self._client_end is not None:
            os.close(self._client_end)
            self._client_end = None
        if self._write_end >= 0:
            self._loop.remove(self._write_end)
            os.close(self._write_end)
            self._write_end = -1

    def client_end(self) -> int:
        """A descriptor to inject; the caller hands it back to `given`. Raises OSError."""
        descriptor, self._client_end = self._client_end, None
        return self._open_end(self._write_end) if descriptor is None else descriptor

    def _open_end(self, pipe: int) -> int:
        return procfs.open_in(f"self/fd/{pipe}", self._end_flags)

    def given(self, end: int) -> None:
        """Close our copy of the client's descriptor."""
        os.close(end)

    def write_end(self) -> int:
        """Our descriptor, -1 once it is closed; each write is one packet for the client."""
        return self._write_end

    def before_insert(self) -> None:
        """Take back what the client has not read, in one moment, into the queue's front.

        The queue's limit then counts it, and it may merge; not if we have no descriptors for
        it. Packets that are none of ours were written by a client; they are dropped.
        """
        if not self._sent:
            return
        unread = []
        try:
            packets = _take_packets(self._write_end)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return
        for data in reversed(packets):
            if self._sent and self._sent[-1].data == data:
                unread.append(self._sent.pop().queued)
        self._sent.clear()
        unread.reverse()
        self._feed.queue.put_back(unread)
        if self._full:
            self._wait_for_room(False)
        # they have waited already
        self._due.extendleft([0] * len(unread))
        while len(self._due) > len(self._feed.queue):  # some were joined
            self._due.pop()

    def fed(self) -> None:
        """Send what is due and fits; the rest later."""
        due = time.monotonic_ns() + self._hold_ns
        while len(self._due) < len(self._feed.queue):
            self._due.append(due)
        if self._due and not self._full:
            self._send()

    def _send(self) -> None:
        queue = self._feed.queue
        while self._write_end >= 0 and (event := queue.peek()) is not None:
            due = self._due[0]
            if isinstance(event, FsErrorEvent) and due > time.monotonic_ns():
                if self._timer is None:
                    self._timer = self._loop.call_at(due, self._held)
                return
            data = encode(event)
            try:
                os.write(self._write_end, data)
            except BlockingIOError:
                self._wait_for_room(True)
                return
            except BrokenPipeError:  # EPOLLERR comes too
                return
            self._due.popleft()
            self._sent.append(_Packet(data, queue.take()))

    def _held(self) -> None:
        self._timer = None
        # the last chance to merge what the kernel has already
        self._feed.pump()
        self.fed()

    def _wait_for_room(self, full: bool) -> None:
        self._full = full
        self._loop.add(self._write_end, select.EPOLLOUT if full else 0, self._ready)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLERR:
            self.close()
            self._gone()
            return
        self._wait_for_room(False)
        self._send()


def _resize(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, SLOTS * _PAGE)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOMEM):
            raise


def _take_packets(pipe: int) -> list[bytes]:
    """All unread packets, taken out at once: no read of the client gets in between."""
    unread = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, unread)
    if not unread[0]:
        return []
    reader = procfs.open_in(f"self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK)
    aside, into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    packets = []
    try:
        room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, room)
        # Reads would interleave with the client's; splice_pipe_to_pipe() holds both locks.
        os.splice(reader, into, room)
        while True:
            packets.append(os.read(aside, _PAGE))
    except BlockingIOError:
        return packets
    finally:
        for descriptor in (reader, aside, into):
            os.close(descriptor)
