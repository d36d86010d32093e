"""``fserr-bpf run``: watch file systems and write their errors as they happen."""

from __future__ import annotations

import argparse
import select
import sys

from fserr_bpf.cli.marks import add_mark_options, marks_of, visibility_of
from fserr_bpf.cli.options import add_paths, add_stream
from fserr_bpf.cli.watching import (
    announce,
    needed_capabilities,
    say,
    say_news,
    stop_signals,
)
from fserr_bpf.errors import OutputError, UsageError
from fserr_bpf.live.privileges import check_user, drop
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs import text
from fserr_bpf.outputs.formats import FORMATS, Format
from fserr_bpf.outputs.sink import PIPE_BUF, Sink


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
        help="add what failed, where in the kernel, which file and whose; in raw, the "
        "records of the proposal",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="run as this user once the probes are attached; default: stay with the "
        "capabilities that following new mounts needs",
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal; returns 0. Raises FserrError subclasses."""
    check_user(arguments.user)
    if arguments.detail and arguments.format == "raw" and arguments.stream != Stream.PROPOSED:
        raise UsageError(
            f"the raw stream {arguments.stream} has no details", "ask for --stream proposed"
        )
    with (
        Sink(arguments.output) as sink,
        stop_signals() as stop,
        Monitor(
            marks_of(arguments),
            arguments.stream,
            detail=arguments.detail,
            debug=arguments.debug,
            **visibility_of(arguments),
        ) as monitor,
    ):
        if arguments.user and monitor.marks.processes:
            raise UsageError(
                "marks through /proc/PID/root need rights that --user gives up",
                "leave --user out",
            )
        announce(monitor)
        if monitor.places:
            monitor.places.become(arguments.user)
        if monitor.names:
            monitor.names.become(arguments.user)
        drop(arguments.user, needed_capabilities(monitor))
        failed: list[Event] = []
        try:
            _loop(monitor, sink, FORMATS[arguments.format], stop, failed)
        finally:
            _account(monitor, failed)
    return 0


def _loop(monitor: Monitor, sink: Sink, form: Format, stop: int, failed: list[Event]) -> None:
    """Pump, write what the reader has room for, sleep; until ``stop`` is readable."""
    stopping = False
    while True:
        monitor.pump()
        say_news(monitor)
        while len(monitor) and sink.ready():
            _write_some(monitor, sink, form, failed)
        if stopping and not monitor.undecided:
            return
        masks = sink.masks(waiting=len(monitor) > 0)
        ready = monitor.wait(others=masks if stopping else {stop: select.POLLIN} | masks)
        stopping |= stop in ready
        if ready & masks.keys():
            monitor.pump()  # errors of the same moment go the way of those that cannot be written
            if not len(monitor):
                raise OutputError(f"the reader of {sink.name} has gone", "start it again first")


def _write_some(monitor: Monitor, sink: Sink, form: Format, failed: list[Event]) -> None:
    """As many events as one write takes without blocking."""
    events: list[Event] = []
    records: list[bytes] = []
    size = 0
    while len(monitor) and size < PIPE_BUF // 2:
        events.append(monitor.pop())
        records.append(form.encode(events[-1]))
        size += len(records[-1])
    try:
        sink.write(records)
    except OutputError:
        failed += events
        raise


def _account(monitor: Monitor, failed: list[Event]) -> None:
    """The loss arithmetic, and in words what was captured but could not be written."""
    if failed:
        failed += monitor.read_events()
    for event in failed:
        sys.stderr.write(text.line(event) + "\n")
    counts = [event.error_count for event in failed if isinstance(event, FsErrorEvent)]
    say(str(monitor.statistics().without_output(sum(counts), len(counts))))
