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
5. Other events of a mixed group merge by ``fanotify_should_merge()``: same task, same
   objects, both of directories or neither, no FAN_RENAME; their masks are joined.

Known difference: the kernel looks at no more than 128 entries of one hash bucket before
it gives up merging. Which events share a bucket depends on kernel addresses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from enum import Enum, auto

from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, OtherEvent, OverflowEvent
from fserr_bpf.uapi.fanotify import FAN_ONDIR, FAN_RENAME

MAX_QUEUED_EVENTS = 16384
"""The kernel's default of ``/proc/sys/fs/fanotify/max_queued_events``."""

_U32 = 0xFFFFFFFF


class Result(Enum):
    """What became of a report."""

    QUEUED = auto()
    MERGED = auto()
    OVERFLOW = auto()


class Queued:
    """An event in the queue; it may still grow until it is taken out."""

    __slots__ = ("error_count", "first", "key")

    def __init__(self, key: Hashable, first: Event, error_count: int = 0) -> None:
        self.key = key
        self.first = first
        self.error_count = error_count

    @property
    def errors(self) -> tuple[int, int]:
        """Errors that made the event, which is one or none, and errors that merged into it."""
        return (1, self.error_count - 1) if self.error_count else (0, 0)

    @property
    def event(self) -> Event:
        """The event as its reader sees it."""
        error_count = self.error_count & _U32
        if not isinstance(self.first, FsErrorEvent) or error_count == self.first.error_count:
            return self.first
        return self.first._replace(error_count=error_count)


class NotificationQueue:
    """Events of one group between its marks and its reader; not thread-safe.

    ``max_events`` is a number of events, None for FAN_UNLIMITED_QUEUE.
    ``make_overflow`` builds the FAN_Q_OVERFLOW event at the moment of the loss.

    ``inserted``, ``merged`` and ``overflowed`` count errors: their sum is all that ``insert``
    was ever given. Of a new event one error is inserted, and those that it comes with are merged.
    ``delivered`` and ``delivered_merged`` are the parts of the first two that have been read.
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
        self.delivered_merged = 0
        self._make_overflow = make_overflow
        self._events: deque[Queued] = deque()
        self._mergeable: dict[Hashable, Queued] = {}

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
        if self._full():
            self.overflowed += count
            self.overflow()
            return Result.OVERFLOW
        key = (fsid, task)
        queued = self._mergeable.get(key)
        if queued is not None:
            queued.error_count += count
            self.merged += count
            return Result.MERGED
        self._append(Queued(key, make(), count))
        self.inserted += 1
        self.merged += count - 1
        return Result.QUEUED

    def insert_other(self, event: OtherEvent) -> Result:
        """Queue an event that is no FAN_FS_ERROR; it is in none of the counts."""
        if self._full():
            self.overflow()
            return Result.OVERFLOW
        key = (event.pid, event.mask & FAN_ONDIR, event.fd, event.extra)
        queued = self._mergeable.get(key) if not event.mask & FAN_RENAME else None
        if queued is not None and isinstance(queued.first, OtherEvent):
            queued.first = queued.first._replace(mask=queued.first.mask | event.mask)
            return Result.MERGED
        self._append(Queued(None if event.mask & FAN_RENAME else key, event))
        return Result.QUEUED

    def overflow(self) -> None:
        """Queue FAN_Q_OVERFLOW unless it is queued: reports were lost before they got here."""
        if OverflowEvent not in self._mergeable:
            self._append(Queued(OverflowEvent, self._make_overflow()))

    def peek(self) -> Event | None:
        """The event that ``pop`` would return now, or None; it may still grow."""
        return self._events[0].event if self._events else None

    def pop(self) -> Event:
        """Take the first event out; IndexError when there is none."""
        return self.take().event

    def take(self) -> Queued:
        """As ``pop``, for who may have to ``put_back`` what was not read after all."""
        first = self._events.popleft()
        if first.key is not None:
            del self._mergeable[first.key]
        self._count(first, 1)
        return first

    def put_back(self, unread: Sequence[Queued]) -> None:
        """Undo the last ``take``s, ``unread`` being in their order: all may merge again."""
        for queued in reversed(unread):
            self._count(queued, -1)
            later = self._mergeable.pop(queued.key, None) if queued.key is not None else None
            if later is not None:
                self._join(queued, later)
            self._events.appendleft(queued)
            if queued.key is not None:
                self._mergeable[queued.key] = queued

    def _count(self, queued: Queued, sign: int) -> None:
        """It has been read, or was not after all."""
        inserted, merged = queued.errors
        self.delivered += sign * inserted
        self.delivered_merged += sign * merged

    def _join(self, queued: Queued, later: Queued) -> None:
        """What was queued while ``queued`` was away becomes a part of it."""
        self._events.remove(later)
        queued.error_count += later.error_count
        inserted, _ = later.errors
        self.inserted -= inserted
        self.merged += inserted
        if isinstance(queued.first, OtherEvent) and isinstance(later.first, OtherEvent):
            queued.first = queued.first._replace(mask=queued.first.mask | later.first.mask)

    def _full(self) -> bool:
        return self.max_events is not None and len(self._events) >= self.max_events

    def _append(self, queued: Queued) -> None:
        self._events.append(queued)
        if queued.key is not None:
            self._mergeable[queued.key] = queued
