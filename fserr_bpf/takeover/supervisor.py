"""The supervisor: answers a client's fanotify calls and feeds its groups until it has ended."""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable
from typing import Protocol

from fserr_bpf.closing import Closing
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.client import Client
from fserr_bpf.live.fanotify import kernel_accepts_fs_error, max_queued_events
from fserr_bpf.live.probes import wanted
from fserr_bpf.live.seccomp import Listener, Notification
from fserr_bpf.model.event import OverflowEvent
from fserr_bpf.model.stream import Stream
from fserr_bpf.source import Source
from fserr_bpf.takeover.calls import InitCall, MarkCall
from fserr_bpf.takeover.channel import Channel
from fserr_bpf.takeover.clienterrors import ClientErrors
from fserr_bpf.takeover.clientqueue import ClientQueue
from fserr_bpf.takeover.group import EmulatedGroup
from fserr_bpf.takeover.loop import Loop
from fserr_bpf.takeover.marking import Marking
from fserr_bpf.takeover.report import Fate, Report, result_words
from fserr_bpf.takeover.shadow import Shadow
from fserr_bpf.uapi.fanotify import (
    FAN_CLOEXEC,
    FAN_NONBLOCK,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FD_ERROR,
    FAN_REPORT_FID,
    FAN_REPORT_PIDFD,
    FAN_REPORT_TID,
    FAN_UNLIMITED_QUEUE,
)
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
from fserr_bpf.uapi.record import Probe
from fserr_bpf.uapi.seccomp import NR_FANOTIFY_INIT

_HANDLES = FAN_REPORT_FID | FAN_REPORT_DIR_FID
_PROPOSED = FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION


class MakeChannel(Protocol):
    """How clients get their descriptors; ``gone`` is called when the last one is closed."""

    def __call__(
        self, feed: EmulatedGroup, gone: Callable[[], None], *, nonblocking: bool
    ) -> Channel: ...


class Supervisor(Closing):
    """All emulated groups of one client and its children."""

    def __init__(
        self,
        listener: Listener,
        armed: Armed,
        stream: Stream,
        *,
        loop: Loop,
        make_channel: MakeChannel,
        report: Report,
    ) -> None:
        self._listener, self._armed, self._stream = listener, armed, stream
        self._loop, self._make_channel, self._report = loop, make_channel, report
        self._source = Source(armed, wanted(stream, armed.kernel))
        self._knows = kernel_accepts_fs_error()
        self._ends_seen = any(a.probe == Probe.SB_DELETE for a in armed.attached)
        self._groups: dict[tuple[int, int], EmulatedGroup] = {}
        self._marking = Marking(self._source.kernel_group, self._groups)
        self._missed_before = armed.missed()
        for fd in self._source.filenos():
            loop.add(fd, select.EPOLLIN, lambda _: self._pump())
        loop.add(listener.fileno(), select.EPOLLIN, self._called)

    def run(self) -> None:
        """Until no task is left that the filter holds for."""
        self._loop.run()
        self._pump()
        for group in list(self._groups.values()):
            self._close(group)
        self._report.end()

    # -- calls -----------------------------------------------------------------------

    def _called(self, events: int) -> None:
        if events & select.EPOLLIN:
            call = self._listener.receive()
            if call is not None:
                self._take(call)
        elif events & select.EPOLLHUP:
            self._loop.stop()

    def _take(self, call: Notification) -> None:
        try:
            client = Client(call.tid)
            if call.syscall == NR_FANOTIFY_INIT:
                self._init(call, InitCall.of(call.args), client)
            else:
                self._mark(call, MarkCall.of(call.args), client)
        except (ProcessLookupError, FileNotFoundError):
            if self._listener.waits(call):  # not the caller has gone but something of ours
                raise

    def _init(self, call: Notification, wish: InitCall, client: Client) -> None:
        reason = self._not_emulated(wish, client)
        if reason:
            self._let_through(call, wish, reason)
            return
        shadow_flags = wish.flags
        if self._stream is Stream.PROPOSED and wish.flags & FAN_REPORT_FID:
            shadow_flags &= ~_PROPOSED
        try:
            shadow = Shadow(shadow_flags, wish.event_flags, knows=self._knows)
        except OSError as error:
            self._answer(call, wish, -(error.errno or errno.EIO))
            return
        group = self._make_group(wish, shadow, client.pid_namespace())
        try:
            channel = self._make_channel(
                group, lambda: self._close(group), nonblocking=bool(wish.flags & FAN_NONBLOCK)
            )
        except OSError as error:  # too many open files
            shadow.close()
            self._answer(call, wish, -(error.errno or errno.EIO))
            return
        group.channel = channel
        self._groups[channel.identity] = group
        self._loop.add(shadow.fileno(), select.EPOLLIN, lambda _: self._ordinary(group))
        end = channel.client_end()
        try:
            given = self._listener.give(call, end, cloexec=bool(wish.flags & FAN_CLOEXEC))
        finally:
            channel.given(end)
        self._report.tell(wish, call.tid, Fate.EMULATED, f"group {group.number}")
        if not given:
            self._close(group)

    def _not_emulated(self, wish: InitCall, client: Client) -> str:
        """Why a group is the kernel's own; "" for one that may have FAN_FS_ERROR."""
        if not wish.notifies:
            return "only groups of FAN_CLASS_NOTIF have FAN_FS_ERROR"
        # with FAN_REPORT_DIR_FID alone the mark is accepted, and nothing is ever sent
        if not wish.flags & (FAN_REPORT_FID if self._knows else _HANDLES):
            return "only groups with FAN_REPORT_FID get FAN_FS_ERROR"
        if not client.privileged():
            return "the caller has no CAP_SYS_ADMIN"
        return ""

    def _make_group(self, wish: InitCall, shadow: Shadow, namespace: int) -> EmulatedGroup:
        flags = GroupFlags(
            thread=bool(wish.flags & FAN_REPORT_TID),
            pidfd=bool(wish.flags & FAN_REPORT_PIDFD),
            numbers=bool(wish.flags & FAN_REPORT_FD_ERROR),
            detail=bool(wish.flags & FAN_REPORT_DETAILED_ERROR),
            location=bool(wish.flags & FAN_REPORT_ERROR_LOCATION),
        )
        errors = ClientErrors(self._stream, flags, self._armed, namespace)
        limit = None if wish.flags & FAN_UNLIMITED_QUEUE else max_queued_events()
        queue = ClientQueue(
            limit,
            lambda: OverflowEvent(fd=flags.fd, pidfd=flags.no_pidfd, time_ns=time.time_ns()),
            errors.in_client,
            flags,
        )
        errors.queue = queue
        self._report.groups += 1
        return EmulatedGroup(
            self._report.groups,
            shadow,
            errors,
            queue,
            self._pump,
            knows=self._knows,
            ends_seen=self._ends_seen,
            silent=not wish.flags & FAN_REPORT_FID,
        )

    def _mark(self, call: Notification, wish: MarkCall, client: Client) -> None:
        identity = client.identity(wish.group)
        group = self._groups.get(identity) if identity else None
        if group is None:
            self._let_through(call, wish, "not a group of ours")
            return
        try:
            group.judge(wish)
            if wish.path and not wish.flushes:
                wish = wish._replace(name=client.text_at(wish.path))
            self._pump()  # what came before the call must not see its effect
            self._marking.perform(group, wish, client, lambda: self._listener.waits(call))
        except OSError as error:
            self._answer(call, wish, -(error.errno or errno.EIO))
            return
        self._watch(group)
        self._answer(call, wish, 0)

    def _answer(self, call: Notification, wish: InitCall | MarkCall, result: int) -> None:
        self._listener.answer(call, result)
        self._report.tell(wish, call.tid, Fate.EMULATED, result_words(result))

    def _let_through(self, call: Notification, wish: InitCall | MarkCall, reason: str) -> None:
        self._listener.let_through(call)
        self._report.tell(wish, call.tid, Fate.LET_THROUGH, reason)

    # -- events ----------------------------------------------------------------------

    def _pump(self) -> None:
        """Bring the records that wait to all groups, and tell their channels."""
        groups = list(self._groups.values())
        for group in groups:
            group.before_insert()
        by_errors = {id(group.errors): group for group in groups}
        for errors, marked in self._source.pump([group.errors for group in groups]):
            group = by_errors[id(errors)]
            group.ended(marked.dev)
            self._watch(group)
        for group in groups:
            group.fed()

    def _ordinary(self, group: EmulatedGroup) -> None:
        group.before_insert()
        group.take_ordinary()
        group.fed()

    def _watch(self, group: EmulatedGroup) -> None:
        self._armed.watch(group, group.devices())

    def _close(self, group: EmulatedGroup) -> None:
        """The client has no descriptor of it any more."""
        if group.channel is None:
            return
        del self._groups[group.channel.identity]
        self._loop.remove(group.shadow.fileno())
        self._armed.watch(group, ())
        self._report.say(f"group {group.number}: {group.errors.statistics(self._missed())}")
        group.close()

    def _missed(self) -> dict[str, int]:
        """Since the start, as for all groups."""
        return {name: n - self._missed_before[name] for name, n in self._armed.missed().items()}

    def close(self) -> None:
        """Release what is its own."""
        self._marking.close()
        self._source.close()
