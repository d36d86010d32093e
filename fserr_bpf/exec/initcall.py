"""``fanotify_init(2)`` of a client: which groups are emulated, and what such a group is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.exec.channel import Channel, Feed
from fserr_bpf.exec.clientpids import ClientPids
from fserr_bpf.exec.clientqueue import ClientQueue
from fserr_bpf.exec.fanotifycalls import InitCall
from fserr_bpf.exec.group import EmulatedGroup
from fserr_bpf.exec.shadow import Shadow
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error, max_queued_events
from fserr_bpf.kernel.kallsyms import shows_addresses
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.tasks.client import Client
from fserr_bpf.uapi.fanotify import (
    FAN_NONBLOCK,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FID,
    FAN_UNLIMITED_QUEUE,
)
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
from fserr_bpf.uapi.record import Probe

_HANDLES = FAN_REPORT_FID | FAN_REPORT_DIR_FID
_PROPOSED = FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION


class MakeChannel(Protocol):
    """How clients get their descriptors; ``gone`` is called when the last one is closed."""

    def __call__(
        self, feed: Feed, flags: GroupFlags, gone: Callable[[], None], *, nonblocking: bool
    ) -> Channel: ...


class InitCalls:
    """Makes the groups of ``stream``; ``pump_errors`` brings the records that wait to all of them.

    ``gone`` is called with a group when its client has closed its last descriptor.
    """

    def __init__(
        self,
        attached: AttachedProbes,
        stream: Stream,
        make_channel: MakeChannel,
        *,
        pump_errors: Callable[[], None],
        gone: Callable[[EmulatedGroup], None],
    ) -> None:
        self._attached, self._stream, self._make_channel = attached, stream, make_channel
        self._pump_errors, self._gone = pump_errors, gone
        self._knows = kernel_accepts_fs_error()
        self._ends_seen = any(a.probe == Probe.SB_DELETE for a in attached.probes)

    def not_emulated(self, call: InitCall, client: Client) -> str:
        """Why a group is the kernel's own; "" for one that may have FAN_FS_ERROR."""
        if not call.notifies:
            return "only groups of FAN_CLASS_NOTIF have FAN_FS_ERROR"
        # with FAN_REPORT_DIR_FID alone the mark is accepted, and nothing is ever sent
        if not call.flags & (FAN_REPORT_FID if self._knows else _HANDLES):
            return "only groups with FAN_REPORT_FID get FAN_FS_ERROR"
        if not client.privileged():
            return "the caller has no CAP_SYS_ADMIN"
        return ""

    def make_group(self, call: InitCall, number: int, namespace: int) -> EmulatedGroup:
        """Group ``number`` of a client in the pid namespace ``namespace`` (an inode number).

        OSError with the errno that the client is to get.
        """
        with_handles = bool(call.flags & FAN_REPORT_FID)
        proposed = self._stream is Stream.PROPOSED
        shadow = Shadow(
            call.flags & ~_PROPOSED if proposed and with_handles else call.flags,
            call.event_flags,
            knows=self._knows,
            inode_marks=proposed,
        )
        flags = GroupFlags.read(call.flags)
        pids = ClientPids(namespace, thread=flags.thread)
        limit = None if call.flags & FAN_UNLIMITED_QUEUE else max_queued_events(procfs.directory())
        queue = ClientQueue(limit, pids.in_client, flags)
        errors = ErrorGroup(
            *(self._stream, flags, MarkTable([]), self._attached, queue),
            pids=pids,
            addresses=flags.detail and shows_addresses(procfs.directory()),
        )

        def make_channel(group: EmulatedGroup) -> Channel:
            nonblocking = bool(call.flags & FAN_NONBLOCK)
            gone = self._gone
            return self._make_channel(group, flags, lambda: gone(group), nonblocking=nonblocking)

        try:
            return EmulatedGroup(
                number,
                shadow,
                errors,
                queue,
                pump_errors=self._pump_errors,
                make_channel=make_channel,
                ends_seen=self._ends_seen,
                without_errors=not with_handles,
            )
        except OSError:  # too many open files
            shadow.close()
            raise
