"""The queue of an emulated group: its events have what is valid in another process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from functools import partial

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group.describe import overflow_event
from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, InfoRecord, OtherEvent, OverflowEvent
from fserr_bpf.model.queue import NotificationQueue, Result
from fserr_bpf.uapi.fanotify import FAN_EVENT_INFO_TYPE_PIDFD

_PIDFD_SIZE = 4


class ClientQueue(NotificationQueue):
    """As its base, without pidfds; ordinary events come with pids of the client's namespace.

    ``pid_of`` turns a pid of the supervisor into one of the client's, 0 if it has none. A
    pidfd cannot be put into another process when that reads it: in such groups it could not
    be made. ``before_insert`` is called before anything comes in, as `Channel` has it.
    """

    def __init__(
        self,
        max_events: int | None,
        pid_of: Callable[[int], int],
        flags: GroupFlags,
    ) -> None:
        super().__init__(max_events, partial(overflow_event, flags))
        self._pid_of = pid_of
        self._flags = flags
        self.before_insert: Callable[[], None] = _nothing

    def insert(
        self, fsid: Fsid, task: Hashable, make: Callable[[], FsErrorEvent], count: int = 1
    ) -> Result:
        """As its base."""
        self.before_insert()

        def make_for_client() -> FsErrorEvent:
            event = make()
            return event._replace(origin=None, pidfd=self._pidfd_of(event.pid))

        return super().insert(fsid, task, make_for_client, count)

    def insert_from_kernel(self, event: Event) -> None:
        """Queue an event of the shadow group; its FAN_Q_OVERFLOW is one of ours."""
        if isinstance(event, OtherEvent):
            self.before_insert()
            pid = self._pid_of(event.pid)
            pidfd = self._pidfd_of(pid)
            extra = event.extra
            if pidfd is not None:  # behind the names, as copy_info_records_to_user() has it
                data = pidfd.to_bytes(_PIDFD_SIZE, "little", signed=True)
                extra += (InfoRecord(FAN_EVENT_INFO_TYPE_PIDFD, 0, data),)
            self.insert_other(event._replace(pid=pid, extra=extra))
        elif isinstance(event, OverflowEvent):
            self.overflow()

    def overflow(self) -> None:
        """As its base."""
        self.before_insert()
        super().overflow()

    def _pidfd_of(self, pid: int) -> int | None:
        """What stands for the pidfd of a process; None in groups without them."""
        if not self._flags.pidfd or not pid:
            return self._flags.no_pidfd
        return self._flags.failed_pidfd(errno.EOPNOTSUPP)


def _nothing() -> None:
    """A queue without a channel has all that is unread."""
