"""The queue of an emulated group: its events have what can be told to another process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, OtherEvent, OverflowEvent
from fserr_bpf.model.group import NotificationQueue, Result


class ClientQueue(NotificationQueue):
    """As its base, without pidfds; ordinary events come with pids of the client's namespace.

    ``pid_of`` turns a pid of the supervisor into one of the client's, 0 if it has none. A
    pidfd cannot be put into another process behind its back: such groups are told that
    it could not be made.
    """

    def __init__(
        self,
        max_events: int | None,
        make_overflow: Callable[[], OverflowEvent],
        pid_of: Callable[[int], int],
        flags: GroupFlags,
    ) -> None:
        super().__init__(max_events, make_overflow)
        self._pid_of = pid_of
        self._flags = flags

    def insert(
        self, fsid: Fsid, task: Hashable, make: Callable[[], FsErrorEvent], count: int = 1
    ) -> Result:
        """As its base."""

        def make_for_client() -> FsErrorEvent:
            event = make()._replace(origin=None)
            if event.pid and self._flags.pidfd:
                event = event._replace(pidfd=self._flags.failed_pidfd(errno.EOPNOTSUPP))
            return event

        return super().insert(fsid, task, make_for_client, count)

    def insert_from_kernel(self, event: Event) -> None:
        """Queue an event of the shadow group; its FAN_Q_OVERFLOW is one of ours."""
        if isinstance(event, OtherEvent):
            self.insert_other(event._replace(pid=self._pid_of(event.pid)))
        elif isinstance(event, OverflowEvent):
            self.overflow()
