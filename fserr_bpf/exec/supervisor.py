"""The supervisor: answers a client's fanotify calls and feeds its groups until it has ended."""

from __future__ import annotations

import errno
import select
from functools import partial

from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError
from fserr_bpf.exec.fanotifycalls import InitCall, MarkCall
from fserr_bpf.exec.group import EmulatedGroup
from fserr_bpf.exec.initcall import InitCalls, MakeChannel
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.markcall import MarkCalls, MarkRequest
from fserr_bpf.exec.markrequest import MarkAnswer
from fserr_bpf.exec.report import Outcome, Report
from fserr_bpf.exec.workers import DoesMarks
from fserr_bpf.group.source import Source
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.probes.table import wanted
from fserr_bpf.tasks.client import Client
from fserr_bpf.tasks.descriptors import descriptor_identity
from fserr_bpf.tasks.seccomp import Listener, Notification
from fserr_bpf.uapi.fanotify import FAN_CLOEXEC
from fserr_bpf.uapi.seccomp import NR_FANOTIFY_INIT

# what looking at a task that has ended leads to
_GONE = (ProcessLookupError, FileNotFoundError)


class Supervisor(Closing):
    """All emulated groups of one client and its children."""

    def __init__(
        self,
        listener: Listener,
        attached: AttachedProbes,
        stream: Stream,
        *,
        loop: Loop,
        make_channel: MakeChannel,
        workers: DoesMarks,
        report: Report,
    ) -> None:
        self._listener, self._attached = listener, attached
        self._loop, self._report = loop, report
        self._source = Source(attached, wanted(stream, attached.kernel))
        # by device and inode of the client's descriptors
        self._groups: dict[tuple[int, int], EmulatedGroup] = {}
        self._init_calls = InitCalls(
            attached, stream, make_channel, pump_errors=self._pump, gone=self._close
        )
        self._mark_calls = MarkCalls(self._source.kernel_group, self._groups, workers, self._pump)
        self._missed_before = attached.missed()
        for fd in self._source.filenos():
            loop.add(fd, select.EPOLLIN, lambda _: self._pump())
        loop.add(listener.fileno(), select.EPOLLIN, self._called)

    def run(self) -> None:
        """Until all tasks that the filter holds for have ended."""
        self._loop.run()
        self._pump()
        for group in list(self._groups.values()):
            self._close(group)
        self._report.end()

    # -- calls -----------------------------------------------------------------------

    def _called(self, events: int) -> None:
        if events & select.EPOLLIN:
            notification = self._listener.receive()
            if notification is not None:
                self._take(notification)
        elif events & select.EPOLLHUP:
            self._loop.stop()

    def _take(self, notification: Notification) -> None:
        is_init = notification.syscall == NR_FANOTIFY_INIT
        call = InitCall.of(notification.args) if is_init else MarkCall.of(notification.args)
        try:
            if isinstance(call, InitCall):
                self._init(notification, call)
            else:
                self._mark(notification, call)
        except Exception as error:
            self._failed(notification, call, error)

    def _init(self, notification: Notification, call: InitCall) -> None:
        client = Client(notification.tid)
        reason = self._init_calls.not_emulated(call, client)
        if reason:
            self._let_through(notification, call, reason)
            return
        namespace, number = client.pid_namespace(), self._report.groups + 1
        group = self._init_calls.make_group(call, number, namespace)
        self._report.groups = number
        self._groups[group.channel.identity] = group
        self._loop.add(group.shadow.fileno(), select.EPOLLIN, lambda _: self._ordinary(group))
        given = False
        try:
            end = group.channel.client_end()
            try:
                cloexec = bool(call.flags & FAN_CLOEXEC)
                given = self._listener.give(notification, end, cloexec=cloexec)
            finally:
                group.channel.given(end)
        finally:
            if not given:
                self._close(group)
        self._report.call(call, notification.tid, Outcome.EMULATED, f"group {group.number}")

    def _mark(self, notification: Notification, call: MarkCall) -> None:
        identity = descriptor_identity(notification.tid, call.group)
        group = self._groups.get(identity) if identity else None
        if group is None:
            self._let_through(notification, call, "not a group of ours")
            return
        group.shadow.judge(call)
        self._mark_calls.begin(
            MarkRequest(
                notification,
                call,
                group,
                partial(self._listener.waits, notification),
                partial(self._marked, notification, call, group),
                partial(self._failed, notification, call),
            )
        )

    def _marked(
        self, notification: Notification, call: MarkCall, group: EmulatedGroup, answer: MarkAnswer
    ) -> None:
        if answer.trouble and self._listener.waits(notification):
            self._report.trouble(answer.trouble)
        if not answer.error and self._groups.get(group.channel.identity) is group:
            self._attached.watch(group, group.marks)
        self._answer(notification, call._replace(name=answer.name), -answer.error)

    def _failed(
        self, notification: Notification, call: InitCall | MarkCall, error: Exception
    ) -> None:
        """It is the error of this call only."""
        if isinstance(error, OSError) and not isinstance(error, _GONE):
            self._answer(notification, call, -(error.errno or errno.EIO))
            return
        if not self._listener.waits(notification):
            return
        if isinstance(error, FserrError):
            self._report.trouble(str(error))
        elif isinstance(error, OSError):
            self._report.trouble(f"task {notification.tid} is not visible in our pid namespace")
        else:
            self._report.mistake(error)
        self._answer(notification, call, -errno.EIO)

    def _answer(self, notification: Notification, call: InitCall | MarkCall, result: int) -> None:
        self._listener.answer(notification, result)
        self._report.result(call, notification.tid, result)

    def _let_through(
        self, notification: Notification, call: InitCall | MarkCall, reason: str
    ) -> None:
        self._listener.let_through(notification)
        self._report.call(call, notification.tid, Outcome.LET_THROUGH, reason)

    # -- events ----------------------------------------------------------------------

    def _pump(self) -> None:
        """Bring the records that wait to all groups, and what became of them to their clients."""
        groups = list(self._groups.values())
        by_errors = {id(group.errors): group for group in groups}
        for errors, marked in self._source.pump([group.errors for group in groups]):
            group = by_errors[id(errors)]
            group.ended(marked.dev)
            self._attached.watch(group, group.marks)
        for group in groups:
            group.channel.fed()

    def _ordinary(self, group: EmulatedGroup) -> None:
        group.take_ordinary()
        group.channel.fed()

    def _close(self, group: EmulatedGroup) -> None:
        """The client has no descriptor of it any more."""
        identity = group.channel.identity
        if self._groups.get(identity) is not group:
            return
        del self._groups[identity]
        self._loop.remove(group.shadow.fileno())
        self._attached.watch(group, ())
        self._report.line(f"group {group.number}: {group.errors.statistics(self._missed())}")
        group.close()

    def _missed(self) -> dict[str, int]:
        """Since the start, as for all groups."""
        return {name: n - self._missed_before[name] for name, n in self._attached.missed().items()}

    def close(self) -> None:
        """Release what is its own."""
        self._source.close()
