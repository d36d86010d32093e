"""The numbers of tasks in the events of an emulated group: those that its client knows."""

from __future__ import annotations

from fserr_bpf.group.describe import Pids
from fserr_bpf.tasks.pidnamespaces import pid_namespace_of, pid_seen_by
from fserr_bpf.uapi.record import Record


class ClientPids(Pids):
    """Pids for a reader in the pid namespace with the inode number ``namespace``.

    The probe saw the numbers of a task in its own namespace and in the supervisor's. In
    another one around it, a task that has ended since has no number any more: 0.
    """

    def __init__(self, namespace: int, *, thread: bool) -> None:
        super().__init__(thread=thread)
        self._namespace = namespace
        self._translates = namespace != pid_namespace_of("self")

    def of_task(self, record: Record) -> int:
        """As ``pid_vnr()`` would say it to the client."""
        number = super().of_task(record)
        if not self._translates:
            return number
        if record.pid_level and record.pid_namespace == self._namespace:
            return record.own_tid if self.thread else record.own_tgid
        return self.in_client(number)

    def of_event(self, pid: int, trace: Record | None) -> int:
        """As ``of_task``; without a trace the number is asked for while the task lives."""
        if trace and self._translates:
            return self.of_task(trace)
        return self.in_client(super().of_event(pid, trace))

    def in_client(self, pid: int) -> int:
        """What a number of the supervisor's namespace is in the client's; 0 if nothing."""
        return pid_seen_by(pid, self._namespace) if pid and self._translates else pid
