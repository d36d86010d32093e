"""The notification queue of one group: what merges, what overflows, what is read next.

The rules, from ``fsnotify_insert_event()`` in ``fs/notify/notification.c`` and
``fanotify_merge()`` in ``fs/notify/fanotify/fanotify.c``:

1. With ``max_events`` or more queued, a report is lost, even one that could merge;
   this is tested first. FAN_Q_OVERFLOW is then queued, unless it already is. It counts
   as queued itself, so there may be one more than ``max_events``.
2. Otherwise a report merges into the event of the same file system and the same task
   that is still queued. Error and inode do not matter: the event keeps those of the
   first report and its place, and ``error_count`` (32 bits, it wraps) grows.
3. Otherwise it is queued at the end.
4. Reading an event ends its merging; reading FAN_Q_OVERFLOW lets it be queued again.

Known difference: the kernel looks at no more than 128 entries of one hash bucket before
it gives up merging. Which events share a bucket depends on kernel addresses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum, auto

from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, OverflowEvent

MAX_QUEUED_EVENTS = 16384
"""The kernel's default of ``/proc/sys/fs/fanotify/max_queued_events``."""

_U32 = 0xFFFFFFFF


class Result(Enum):
    """What became of a report."""

    QUEUED = auto()
    MERGED = auto()
    OVERFLOW = auto()


class _Queued:
    """A FAN_FS_ERROR event that may still grow."""

    __slots__ = ("error_count", "event", "first_count", "key")

    def __init__(self, key: tuple[Fsid, Hashable], event: FsErrorEvent, error_count: int) -> None:
        self.key = key
        self.event = event
        self.error_count = error_count
        self.first_count = error_count


class NotificationQueue:
    """Events of one group between its marks and its reader; not thread-safe.

    ``max_events`` is a number of events, None for FAN_UNLIMITED_QUEUE.
    ``make_overflow`` builds the FAN_Q_OVERFLOW event at the moment of the loss.

    ``inserted``, ``merged`` and ``overflowed`` count reports, not events: their sum is
    all that ``insert`` was ever given. ``delivered`` is the part of ``inserted`` that
    has been read.
    """

    def __init__(
        self,
        max_events: int | None = MAX_QUEUED_EVENTS,
        make_overflow: Callable[[], OverflowEvent] = OverflowEvent,
    ) -> None:
        self.max_events = max_events
        self.inserted = 0
        self.merged = 0
        self.overflowed = 0
        self.delivered = 0
        self._make_overflow = make_overflow
        self._events: deque[_Queued | OverflowEvent] = deque()
        self._mergeable: dict[tuple[Fsid, Hashable], _Queued] = {}
        self._overflow_queued = False

    def __len__(self) -> int:
        """The number of queued events, FAN_Q_OVERFLOW included."""
        return len(self._events)

    def insert(
        self, fsid: Fsid, task: Hashable, make: Callable[[], FsErrorEvent], count: int = 1
    ) -> Result:
        """Report ``count`` errors of ``task`` on ``fsid``; at least one.

        ``task`` must tell a process from a later one with the same pid. ``make`` is
        called only if the event is queued; its ``error_count`` is replaced.
        """
        if self.max_events is not None and len(self._events) >= self.max_events:
            self.overflowed += count
            self.overflow()
            return Result.OVERFLOW
        key = (fsid, task)
        queued = self._mergeable.get(key)
        if queued is not None:
            queued.error_count += count
            self.merged += count
            return Result.MERGED
        queued = _Queued(key, make(), count)
        self._events.append(queued)
        self._mergeable[key] = queued
        self.inserted += count
        return Result.QUEUED

    def overflow(self) -> None:
        """Queue FAN_Q_OVERFLOW unless it is queued: reports were lost before they got here."""
        if not self._overflow_queued:
            self._events.append(self._make_overflow())
            self._overflow_queued = True

    def peek(self) -> Event | None:
        """The event that ``pop`` would return now, or None; it may still grow."""
        if not self._events:
            return None
        first = self._events[0]
        return first if isinstance(first, OverflowEvent) else _final(first)

    def pop(self) -> Event:
        """Take the first event out; IndexError when there is none."""
        first = self._events.popleft()
        if isinstance(first, OverflowEvent):
            self._overflow_queued = False
            return first
        del self._mergeable[first.key]
        self.delivered += first.first_count
        return _final(first)


def _final(queued: _Queued) -> FsErrorEvent:
    error_count = queued.error_count & _U32
    if error_count == queued.event.error_count:
        return queued.event
    return queued.event._replace(error_count=error_count)
