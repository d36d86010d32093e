"""A group's descriptor as a file of a FUSE server that is the supervisor itself.

A READ or POLL of the client waits for our answer, so all that the kernel has by then is
given to it, in one read as in a group. The price is some tens of microseconds for each of
them. What differs from a fanotify descriptor:

- A thread under a debugger, or one that may not be traced, gets EINTR from a blocked read
  after every signal, also after a stop; otherwise see `fserr_bpf.tasks.restart`.
- FIONREAD gives 0, lseek ESPIPE, a read of 0 bytes 0; the file is a regular one.
- Without its supervisor reads fail (ENOTCONN, ECONNABORTED) and poll returns POLLERR.

`fserr_bpf.exec.fuse` is the server.
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Callable

from fserr_bpf.closing import Closing
from fserr_bpf.codec import reader
from fserr_bpf.exec.channel import Feed
from fserr_bpf.exec.fuse import MAX_PAGES, FuseServer, PendingRead
from fserr_bpf.uapi import fuse

_PAGE = os.sysconf("SC_PAGE_SIZE")
# A buffer that need not be aligned may take one page more than it is long.
_WHOLE_READ = (MAX_PAGES - 1) * _PAGE


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
        self._nonblocking, self._opened = nonblocking, False
        self._node = server.add(self)
        self.identity = server.st_dev, self._node
        self._waiting: deque[PendingRead] = deque()
        # what to wake when there is more; None while nobody polls
        self._poll_handle: int | None = None

    def close(self) -> None:
        """Waiting reads and all later ones fail (EIO)."""
        self._server.remove(self._node)
        while self._waiting:
            self._server.answer(self._waiting.popleft().unique, errno.EIO)

    def client_end(self) -> int | None:
        """The first time a descriptor to inject, which comes back with `given`. Raises OSError."""
        if self._opened:
            return None
        end = self._server.open(self._node, nonblocking=self._nonblocking)
        self._opened = True
        return end

    def given(self, end: int) -> None:
        """Close our copy of the client's descriptor."""
        self._server.close_copy(end)

    def before_insert(self) -> None:
        """All that is unread is in the queue."""

    def fed(self) -> None:
        """Answer the reads that wait, and wake the polls."""
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
        """As ``fanotify_poll()``; ``handle`` if the caller will wait for more."""
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
