"""Which groups of a client are emulated, and what such a group is made of.

A group is the kernel's own until a mark first asks it for FAN_FS_ERROR: who never does sees nothing
but the kernel. Then it becomes the shadow of an emulated one. Only groups with flags that
no upstream kernel knows, those of the proposal, are emulated from the start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Protocol

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.exec.channel import Channel, Feed
from fserr_bpf.exec.clientpids import ClientPids
from fserr_bpf.exec.clientqueue import ClientQueue
from fserr_bpf.exec.fanotifycalls import InitCall, MarkCall
from fserr_bpf.exec.group import EmulatedGroup
from fserr_bpf.exec.limits import require_room
from fserr_bpf.exec.shadow import Shadow, group_flags, make_group
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error, max_queued_events
from fserr_bpf.kernel.kallsyms import shows_addresses
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.tasks.client import Client
from fserr_bpf.tasks.descriptors import copy_descriptor, same_file
from fserr_bpf.uapi.fanotify import (
    FAN_CLASS_CONTENT,
    FAN_CLASS_PRE_CONTENT,
    FAN_NONBLOCK,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FID,
    FAN_UNLIMITED_QUEUE,
)
from fserr_bpf.uapi.proposed import PROPOSED_FLAGS
from fserr_bpf.uapi.record import Probe

NOT_FOR_ERRORS = "not for FAN_FS_ERROR"
"""Why most marks are the kernel's."""

_HANDLES = FAN_REPORT_FID | FAN_REPORT_DIR_FID
_PERMISSIONS = FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT


class MakeChannel(Protocol):
    """How clients get their descriptors; ``gone`` is called when the last one is closed."""

    def __call__(
        self, feed: Feed, flags: GroupFlags, gone: Callable[[], None], *, nonblocking: bool
    ) -> Channel: ...


class Making:
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

    def new(self, call: InitCall, client: Client) -> EmulatedGroup | str:
        """One with flags of the proposal, or why it is not emulated.

        OSError with the errno that the client is to get.
        """
        if self._stream is not Stream.PROPOSED:
            return "these flags are for --stream proposed"
        if reason := self._not_emulated(call.flags, client):
            return reason
        fd = make_group(call.flags & ~PROPOSED_FLAGS, call.event_flags)
        return self._made(fd, call.flags, client, nonblocking=bool(call.flags & FAN_NONBLOCK))

    def adopted(
        self, call: MarkCall, client: Client, known: Iterable[EmulatedGroup]
    ) -> EmulatedGroup | str:
        """The group that a client marks with a descriptor of the kernel's own.

        One of ``known`` if that is its shadow already, otherwise a new one; or why the call is to
        be the kernel's. OSError with the errno that the client is to get.
        """
        fd = copy_descriptor(client.tid, call.group)
        if fd is None:
            return "no descriptor"
        kept = False
        try:
            require_room(fd)
            flags = group_flags(fd)
            if flags is None:
                return "not a group"
            if reason := self._not_emulated(flags, client):
                return reason
            for group in known:
                if same_file(os.getpid(), fd, group.shadow.fileno()):
                    group.shadow.judge(call)
                    return group
            if not call.errors:
                return NOT_FOR_ERRORS
            self._shadow(fd, flags).judge(call)
            kept = True
            return self._made(fd, flags, client, nonblocking=not os.get_blocking(fd))
        finally:
            if not kept:
                os.close(fd)

    def _not_emulated(self, flags: int, client: Client) -> str:
        """Why a group with such flags stays the kernel's own; "" for one that may have errors."""
        if flags & _PERMISSIONS:
            return "only groups of FAN_CLASS_NOTIF have FAN_FS_ERROR"
        # with FAN_REPORT_DIR_FID alone the mark is accepted, and nothing is ever sent
        if not flags & (FAN_REPORT_FID if self._knows else _HANDLES):
            return "only groups with FAN_REPORT_FID get FAN_FS_ERROR"
        if not client.privileged():
            return "the caller has no CAP_SYS_ADMIN"
        return ""

    def _shadow(self, fd: int, flags: int) -> Shadow:
        inode_marks = self._stream is Stream.PROPOSED
        return Shadow(fd, flags, knows=self._knows, inode_marks=inode_marks)

    def _made(
        self, fd: int, init_flags: int, client: Client, *, nonblocking: bool
    ) -> EmulatedGroup:
        """Of the group ``fd``, which is closed where that fails (OSError)."""
        flags = GroupFlags.read(init_flags)
        shadow = self._shadow(fd, init_flags)

        def make_channel(group: EmulatedGroup) -> Channel:
            gone = self._gone
            return self._make_channel(group, flags, lambda: gone(group), nonblocking=nonblocking)

        try:
            pids = ClientPids(client.pid_namespace(), thread=flags.thread)
            unlimited = init_flags & FAN_UNLIMITED_QUEUE
            limit = None if unlimited else max_queued_events(procfs.directory())
            queue = ClientQueue(limit, pids.in_client, flags)
            errors = ErrorGroup(
                *(self._stream, flags, MarkTable([]), self._attached, queue),
                pids=pids,
                addresses=flags.detail and shows_addresses(procfs.directory()),
            )
            return EmulatedGroup(
                shadow,
                errors,
                queue,
                pump_errors=self._pump_errors,
                make_channel=make_channel,
                ends_seen=self._ends_seen,
                without_errors=not init_flags & FAN_REPORT_FID,
            )
        except BaseException:  # too many open files, or the client is gone
            shadow.close()
            raise
