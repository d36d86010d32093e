"""The supervisor's process: what it is made of, put together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.exec.channel import Channel, Feed
from fserr_bpf.exec.exact import ExactChannel
from fserr_bpf.exec.fuse import FuseServer
from fserr_bpf.exec.guardian import Guardians
from fserr_bpf.exec.lines import ErrorLines
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.making import MakeChannel
from fserr_bpf.exec.markobject import MarkWorker
from fserr_bpf.exec.pipe import PipeChannel
from fserr_bpf.exec.report import Report
from fserr_bpf.exec.supervisor import Supervisor
from fserr_bpf.exec.workers import Workers
from fserr_bpf.model.event import OverflowEvent
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.tasks.seccomp import Listener


class Settings(NamedTuple):
    """``exact``: descriptors that read as the kernel's do. ``report``: write down each call."""

    stream: Stream
    exact: bool
    report: bool
    debug: bool


def serve(
    settings: Settings, get_listener: Callable[[], Listener | None], guardians: Guardians
) -> None:
    """Attach, then answer and feed until the client has ended. Raises FserrError subclasses."""
    with ExitStack() as stack:
        attached = stack.enter_context(AttachedProbes([settings.stream], debug=settings.debug))
        loop = stack.enter_context(Loop())
        lines = stack.enter_context(ErrorLines())
        guardians.watch(loop, lines)
        if settings.exact:
            make = _exact(stack.enter_context(FuseServer(loop)))
        else:
            make = _pipe(loop, guardians)
        report = Report(lines, enabled=settings.report, debug=settings.debug)
        for note in attached.notes:
            report.line(note)
        listener = get_listener()
        if listener is None:
            return
        stack.enter_context(listener)
        worker = MarkWorker(listener.waits_for, debug=settings.debug)
        workers = stack.enter_context(Workers(loop, worker.serve, [listener.fileno()]))
        stack.enter_context(
            Supervisor(
                listener,
                attached,
                settings.stream,
                loop=loop,
                make_channel=make,
                workers=workers,
                report=report,
            )
        ).run()


def _pipe(loop: Loop, guardians: Guardians) -> MakeChannel:
    def make(
        feed: Feed, flags: GroupFlags, gone: Callable[[], None], *, nonblocking: bool
    ) -> Channel:
        channel = PipeChannel(feed, loop, gone, nonblocking=nonblocking)
        overflow = encode(OverflowEvent(fd=flags.fd, pidfd=flags.no_pidfd))
        guardians.hold(channel, overflow)
        return channel

    return make


def _exact(server: FuseServer) -> MakeChannel:
    def make(
        feed: Feed, flags: GroupFlags, gone: Callable[[], None], *, nonblocking: bool
    ) -> Channel:
        return ExactChannel(server, feed, gone, nonblocking=nonblocking)

    return make
