"""The one thing that the supervisor waits in: descriptors and times, one thread."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable
from typing import NamedTuple

from fserr_bpf.closing import Closing


class _Watch(NamedTuple):
    """Compared by identity: a descriptor's number may be used again within a round."""

    callback: Callable[[int], None]


class Timer:
    """A call that is due at a time; ``cancel`` it before that, or it comes."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call; nothing if it was called already."""
        self.callback = None


class Loop(Closing):
    """Callbacks for ready descriptors (epoll, level-triggered) and for times.

    An exception of a callback leaves `run`, which may be called again.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watches: dict[int, _Watch] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._count = itertools.count()
        self._running = False

    def close(self) -> None:
        """Forget all descriptors, which stay open, and all times."""
        self._epoll.close()

    def add(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` while ``fd`` has any of the EPOLL* ``mask``.

        EPOLLERR and EPOLLHUP are always part of it. A descriptor that is there already
        gets the new mask and callback. Raises OSError as epoll_ctl(2).
        """
        if fd in self._watches:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._watches[fd] = _Watch(callback)

    def remove(self, fd: int) -> None:
        """Call no more for ``fd``, from now on; do this before it is closed."""
        del self._watches[fd]
        self._epoll.unregister(fd)

    def call_at(self, monotonic_ns: int, callback: Callable[[], None]) -> Timer:
        """Call once, up to a millisecond after that time of CLOCK_MONOTONIC, never before."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (monotonic_ns, next(self._count), timer))
        return timer

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            self._round()

    def stop(self) -> None:
        """Let `run` return when the callbacks of this round have been called."""
        self._running = False

    def _round(self) -> None:
        ready = self._epoll.poll(self._timeout())
        # looked up before any callback can close one and open another of its number
        watched = [(fd, events, self._watches[fd]) for fd, events in ready]
        self._call_due()
        for fd, events, watch in watched:
            if self._watches.get(fd) is watch:
                watch.callback(events)

    def _timeout(self) -> float | None:
        """Seconds until the first time that is still wanted; epoll rounds them up to ms."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0, self._timers[0][0] - time.monotonic_ns()) / 1e9

    def _call_due(self) -> None:
        now = time.monotonic_ns()
        # first all of them: what they add comes in the next round, behind the descriptors
        due = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
