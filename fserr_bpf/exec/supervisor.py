"""The supervisor: answers a client's fanotify calls and feeds its groups until it has ended."""

from __future__ import annotations

import errno
import select
from collections.abc import Sequence
from functools import partial

from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError
from fserr_bpf.exec.adoption import Adoptions
from fserr_bpf.exec.fanotifycalls import InitCall, MarkCall
from fserr_bpf.exec.group import EmulatedGroup
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.making import NOT_FOR_ERRORS, MakeChannel, Making
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
from fserr_bpf.uapi.fanotify import FAN_CLOEXEC, FAN_FS_ERROR
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
        self._making = Making(
            attached, stream, make_channel, pump_errors=self._pump, gone=self._close
        )
        self._adoptions = Adoptions(listener, loop, given_up=self._close, trouble=report.trouble)
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
        if not (is_init or self._groups or self._report.enabled or _asks_errors(notification)):
            self._listener.let_through(notification)
            return
        call = InitCall.of(notification.args) if is_init else MarkCall.of(notification.args)
        try:
            if isinstance(call, InitCall):
                self._init(notification, call)
            else:
                self._mark(notification, call)
        except Exception as error:
            self._failed(notification, call, error)

    def _init(self, notification: Notification, call: InitCall) -> None:
        group = self._making.new(call, Client(notification.tid))
        if isinstance(group, str):
            self._let_through(notification, call, group)
            return
        self._groups[group.channel.identity] = group
        given = False
        try:
            end = group.channel.client_end()
            assert end is not None  # the first
            try:
                cloexec = bool(call.flags & FAN_CLOEXEC)
                given = self._listener.give(notification, end, cloexec=cloexec)
            finally:
                group.channel.given(end)
        finally:
            if given:
                self._taken(group)
            else:
                self._close(group)
        self._report.call(call, notification.tid, Outcome.EMULATED, f"group {group.number}")

    def _mark(self, notification: Notification, call: MarkCall) -> None:
        # nearly all calls are for groups of the kernel's own: as few looks as possible
        identity = self._groups and descriptor_identity(notification.tid, call.group)
        group = self._groups.get(identity) if identity else None
        adopting = group is None
        if group is None:
            found = self._adopted(notification, call)
            if isinstance(found, str):
                self._let_through(notification, call, found)
                return
            group = found
            self._groups[group.channel.identity] = group
            self._adoptions.begin(notification, group)
        else:
            group.shadow.judge(call)
        answered = self._marked_first if adopting else self._marked
        self._mark_calls.begin(
            MarkRequest(
                notification,
                call,
                group,
                partial(self._listener.waits, notification),
                partial(answered, notification, call, group),
                partial(self._failed, notification, call),
            )
        )

    def _adopted(self, notification: Notification, call: MarkCall) -> EmulatedGroup | str:
        """The group whose real one the call is for, or why it is the kernel's.

        Also one that takes marks away may come from a process with a descriptor of the kernel's
        own of a group that is emulated by now.
        """
        if not (call.errors or (self._groups and (call.removes or call.flushes))):
            return NOT_FOR_ERRORS
        return self._making.adopted(call, Client(notification.tid), self._groups.values())

    def _marked_first(
        self, notification: Notification, call: MarkCall, group: EmulatedGroup, answer: MarkAnswer
    ) -> None:
        """The group is emulated from now on, if the mark was made."""
        if answer.error:
            self._adoptions.refuse(notification, group)
            self._marked(notification, call, group, answer)
            return

        def exchanged(numbers: Sequence[int]) -> None:
            if numbers:
                self._taken(group)
            self._adoptions.refuse(notification, group)
            self._marked(notification, call, group, answer)

        self._adoptions.exchange(notification, group, exchanged)

    def _taken(self, group: EmulatedGroup) -> None:
        """A client has got its descriptor."""
        if not group.number:
            self._report.groups += 1
            group.number = self._report.groups
            group.shadow.begin()
            self._loop.add(group.shadow.fileno(), select.EPOLLIN, lambda _: self._ordinary(group))

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
        if self._report.enabled and isinstance(call, MarkCall) and call.path:
            waits = partial(self._listener.waits, notification)
            named = partial(self._named, notification, call, reason)
            self._mark_calls.name(notification, call, waits, named)
            return
        self._listener.let_through(notification)
        self._report.call(call, notification.tid, Outcome.LET_THROUGH, reason)

    def _named(
        self, notification: Notification, call: MarkCall, reason: str, answer: MarkAnswer
    ) -> None:
        self._listener.let_through(notification)
        named = call._replace(name=answer.name)
        self._report.call(named, notification.tid, Outcome.LET_THROUGH, reason)

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
        self._attached.watch(group, ())
        if group.number:
            self._loop.remove(group.shadow.fileno())
            self._report.line(f"group {group.number}: {group.errors.statistics(self._missed())}")
        group.close()

    def _missed(self) -> dict[str, int]:
        """Since the start, as for all groups."""
        return {name: n - self._missed_before[name] for name, n in self._attached.missed().items()}

    def close(self) -> None:
        """Release what is its own."""
        self._source.close()


def _asks_errors(notification: Notification) -> bool:
    """Of a mark, before all of it is decoded: watchers of ordinary events make a great many."""
    return bool(notification.args[2] & FAN_FS_ERROR)
