"""The errors of an emulated group: pids are those that its client knows."""

from __future__ import annotations

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.errorgroup import ErrorGroup
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.pidnamespaces import pid_namespace_of, pid_seen_by
from fserr_bpf.marks import MarkTable
from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.record import Record


class ClientErrors(ErrorGroup):
    """A group read in the pid namespace with the inode number ``namespace``.

    The probe saw the numbers of a task in its own namespace and in the supervisor's. In
    another one around it, a task that has ended since has no number any more: 0.
    """

    def __init__(self, stream: Stream, flags: GroupFlags, armed: Armed, namespace: int) -> None:
        super().__init__(stream, flags, MarkTable([]), armed, max_events=None)
        self._namespace = namespace
        self._translates = namespace != pid_namespace_of("self")

    def shown_pid(self, record: Record) -> int:
        """As ``pid_vnr()`` would say it to the client."""
        number = super().shown_pid(record)
        if not self._translates:
            return number
        if record.pid_level and record.pid_namespace == self._namespace:
            return record.own_tid if self.flags.thread else record.own_tgid
        return self.in_client(number)

    def shown_kernel_pid(self, pid: int, trace: Record | None) -> int:
        """As ``shown_pid``; without a trace the number is asked for while the task lives."""
        if trace and self._translates:
            return self.shown_pid(trace)
        return self.in_client(super().shown_kernel_pid(pid, trace))

    def in_client(self, pid: int) -> int:
        """What a number of the supervisor's namespace is in the client's; 0 if nothing."""
        return pid_seen_by(pid, self._namespace) if pid and self._translates else pid
