"""``fserr-bpf run``: watch file systems and write their errors as they happen."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from collections import deque
from contextlib import ExitStack
from typing import NamedTuple

from fserr_bpf.cli.marks import add_mark_options, marks_of, visibility_of
from fserr_bpf.cli.options import add_paths, add_stream
from fserr_bpf.cli.ready import Readiness, add_ready
from fserr_bpf.cli.watching import (
    announce,
    check_rights,
    has_terminal,
    needed_capabilities,
    say,
    say_news,
    say_states,
    stop_signals,
)
from fserr_bpf.errors import OutputError, UsageError
from fserr_bpf.kernel.privileges import drop
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.state import StateChange
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs import text
from fserr_bpf.outputs.formats import FORMATS, Format
from fserr_bpf.outputs.sink import Sink

_SIGNALS = 64  # numbers to read at once


class _Stop(NamedTuple):
    """``signals`` is readable when one has come; ``terminal``: there was one at the start."""

    signals: int
    terminal: bool


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="stream the errors of file systems until Ctrl-C",
        description="Stream the errors of file systems until Ctrl-C or SIGTERM.",
    )
    add_paths(parser)
    add_mark_options(parser)
    parser.add_argument("--format", choices=sorted(FORMATS), default="text")
    parser.add_argument("--output", metavar="FILE", help="append to FILE, not standard output")
    add_stream(parser)
    parser.add_argument(
        "--detail",
        action="store_true",
        help="also report what failed, the file, the container and the kernel call stack; in "
        "raw, the records of the proposal",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="become this user once the probes are attached; default: keep the capabilities "
        "that are needed to follow new mounts",
    )
    add_ready(parser)
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal; returns 0. Raises FserrError subclasses."""
    check_rights(arguments.user)
    if arguments.detail and arguments.format == "raw" and arguments.stream != Stream.PROPOSED:
        raise UsageError(
            f"the raw stream {arguments.stream} has no details", "use --stream proposed"
        )
    with ExitStack() as stack:
        readiness = stack.enter_context(Readiness(arguments.ready_fd))
        terminal = has_terminal()
        signals = stack.enter_context(stop_signals(hangup=arguments.output is None))
        stop = _Stop(signals, terminal)
        sink = stack.enter_context(Sink(arguments.output, packets=arguments.format == "raw"))
        if not sink.has_reader:
            say(f"waiting for a reader of {sink.name}")
            if not sink.wait_for_reader(signals):
                return 0
        monitor = stack.enter_context(
            Monitor(
                marks_of(arguments),
                arguments.stream,
                detail=arguments.detail,
                debug=arguments.debug,
                states=True,
                **visibility_of(arguments),
            )
        )
        if arguments.user and monitor.marks.processes:
            raise UsageError(
                "marks through /proc/PID/root need rights that --user gives up",
                "leave --user out",
            )
        announce(monitor)
        if monitor.helper:
            monitor.helper.drop_rights(arguments.user)
        if monitor.states:
            monitor.states.drop_rights(arguments.user)
        drop(arguments.user, needed_capabilities(monitor))
        readiness.signal()
        failed: list[Event] = []
        try:
            _loop(monitor, sink, FORMATS[arguments.format], stop, failed)
        finally:
            readiness.close()
            _account(monitor, failed)
    return 0


def _loop(monitor: Monitor, sink: Sink, form: Format, stop: _Stop, failed: list[Event]) -> None:
    """Pump, write what the reader has room for, sleep; until a signal in ``stop`` ends it."""
    stopping = False
    states: deque[StateChange] = deque()
    while True:
        monitor.pump()
        say_news(monitor)
        states += say_states(monitor)
        if not form.encode_state:
            states.clear()
        while (states or len(monitor)) and sink.ready():
            if states and form.encode_state:
                sink.write([form.encode_state(states.popleft())])
            else:
                _write_some(monitor, sink, form, failed)
        if stopping and not monitor.undecided:
            if monitor.states:
                monitor.states.look_again()
            _write_states(say_states(monitor), sink, form)
            return
        masks = sink.masks(waiting=len(monitor) > 0 or len(states) > 0)
        ready = monitor.wait(others=masks if stopping else {stop.signals: select.POLLIN} | masks)
        stopping |= stop.signals in ready and _ends(stop, sink)
        if ready & masks.keys():
            monitor.pump()  # errors of the same moment go the way of those that cannot be written
            if not len(monitor) and not states:
                raise sink.reader_gone()


def _write_states(changes: list[StateChange], sink: Sink, form: Format) -> None:
    """The last, if the reader has room: standard error has them in any case."""
    if form.encode_state and changes and sink.ready():
        sink.write([form.encode_state(change) for change in changes])


def _ends(stop: _Stop, sink: Sink) -> bool:
    """Whether the signals that have come end it; SIGHUP has a file opened again."""
    if set(os.read(stop.signals, _SIGNALS)) != {signal.SIGHUP} or not sink.path:
        return True
    if stop.terminal and not has_terminal():  # that is what SIGHUP says then
        return True
    try:
        sink.reopen()
    except OutputError as error:  # not a reason to stop watching
        say(str(error))
    return False


def _write_some(monitor: Monitor, sink: Sink, form: Format, failed: list[Event]) -> None:
    """As many events as one write takes without blocking."""
    events: list[Event] = []
    records: list[bytes] = []
    size = 0
    while len(monitor) and (size < sink.batch or not events):
        events.append(monitor.pop())
        records.append(form.encode(events[-1]))
        size += len(records[-1])
    try:
        sink.write(records)
    except OutputError:
        failed += events
        raise


def _account(monitor: Monitor, failed: list[Event]) -> None:
    """The loss arithmetic, and in words what was captured but not written."""
    if failed:
        monitor.pump()
    while len(monitor):  # the reader has no room
        failed.append(monitor.pop())
    for event in failed:
        sys.stderr.write(text.line(event) + "\n")
    counts = [event.error_count for event in failed if isinstance(event, FsErrorEvent)]
    say(str(monitor.statistics().without_output(sum(counts), len(counts))))
