"""The supervisor's process: what it is made of, put together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.seccomp import Listener
from fserr_bpf.model.event import OverflowEvent
from fserr_bpf.model.stream import Stream
from fserr_bpf.takeover.channel import Channel
from fserr_bpf.takeover.fuse import ExactChannel, FuseServer
from fserr_bpf.takeover.group import EmulatedGroup
from fserr_bpf.takeover.guardian import Trust
from fserr_bpf.takeover.loop import Loop
from fserr_bpf.takeover.pipe import PipeChannel
from fserr_bpf.takeover.report import Report
from fserr_bpf.takeover.supervisor import MakeChannel, Supervisor


class Settings(NamedTuple):
    """``exact``: descriptors that read as the kernel's do. ``aloud``: tell each call."""

    stream: Stream
    exact: bool
    aloud: bool
    debug: bool


def serve(settings: Settings, get_listener: Callable[[], Listener | None], trust: Trust) -> None:
    """Arm, then answer and feed until the client has ended. Raises FserrError subclasses."""
    with ExitStack() as stack:
        armed = stack.enter_context(Armed([settings.stream], debug=settings.debug))
        loop = stack.enter_context(Loop())
        if settings.exact:
            make = _exact(stack.enter_context(FuseServer(loop)))
        else:
            make = _pipe(loop, trust)
        report = Report(aloud=settings.aloud)
        listener = get_listener()
        if listener is None:
            return
        stack.enter_context(listener)
        stack.enter_context(
            Supervisor(
                listener, armed, settings.stream, loop=loop, make_channel=make, report=report
            )
        ).run()


def _pipe(loop: Loop, trust: Trust) -> MakeChannel:
    def make(feed: EmulatedGroup, gone: Callable[[], None], *, nonblocking: bool) -> Channel:
        channel = PipeChannel(feed, loop, gone, nonblocking=nonblocking)
        flags = feed.errors.flags
        last = encode(OverflowEvent(fd=flags.fd, pidfd=flags.no_pidfd))
        trust.hold(channel.write_end(), last)
        return channel

    return make


def _exact(server: FuseServer) -> MakeChannel:
    def make(feed: EmulatedGroup, gone: Callable[[], None], *, nonblocking: bool) -> Channel:
        return ExactChannel(server, feed, gone, nonblocking=nonblocking)

    return make
