"""``fserr-bpf run``: watch file systems and write their errors as they happen."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fserr_bpf.errors import OutputError
from fserr_bpf.live.privileges import Capability, check_user, drop
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs import text
from fserr_bpf.outputs.formats import FORMATS, Format
from fserr_bpf.outputs.sink import PIPE_BUF, Sink

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="stream the errors of file systems until Ctrl-C",
        description="Stream the errors of file systems until Ctrl-C or SIGTERM.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="any path on the file system to watch; default: every mounted ext4, XFS, "
        "btrfs and f2fs, also those mounted later",
    )
    parser.add_argument("--format", choices=sorted(FORMATS), default="text")
    parser.add_argument("--output", metavar="FILE", help="append to FILE, not standard output")
    parser.add_argument(
        "--stream",
        type=Stream,
        choices=list(Stream),
        default=Stream.PROPOSED,
        help="native: what this kernel emits itself; fserror: what Linux 7.x emits; "
        "proposed (default): ext4, XFS and writeback errors of every file system",
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
    marks = [Mark.filesystem(path) for path in arguments.paths] or None
    with (
        Sink(arguments.output) as sink,
        _stop_signals() as stop,
        Monitor(marks, arguments.stream, debug=arguments.debug) as monitor,
    ):
        _announce(monitor)
        drop(arguments.user, _needed(monitor))
        failed: list[Event] = []
        try:
            _loop(monitor, sink, FORMATS[arguments.format], stop, failed)
        finally:
            _account(monitor, failed)
    return 0


def _needed(monitor: Monitor) -> list[Capability]:
    if not monitor.marks.follows:
        return []
    needed = [Capability.DAC_READ_SEARCH]
    if not monitor.armed.kernel.kprobes:
        needed.append(Capability.SYS_ADMIN)
    return needed


def _loop(monitor: Monitor, sink: Sink, form: Format, stop: int, failed: list[Event]) -> None:
    """Pump, write what the reader has room for, sleep; until ``stop`` is readable."""
    stopping = False
    while True:
        monitor.pump()
        _say_news(monitor)
        while len(monitor) and sink.ready():
            _write_some(monitor, sink, form, failed)
        if stopping:
            return
        masks = sink.masks(waiting=len(monitor) > 0)
        ready = monitor.wait(others={stop: select.POLLIN} | masks)
        stopping = stop in ready
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


def _announce(monitor: Monitor) -> None:
    """Say that the probes are armed, on what, and what cannot be seen."""
    names = ", ".join(f"{m.mount_point} ({m.fstype} on {m.device})" for m in monitor.marks)
    _say(f"watching {names or 'nothing yet'}; stream {monitor.stream}")
    for reason, blind in monitor.blind().items():
        _say(f"cannot see {', '.join(blind)}: {reason}")
    _say_news(monitor)


def _say_news(monitor: Monitor) -> None:
    for line in monitor.news():
        _say(line)


def _account(monitor: Monitor, failed: list[Event]) -> None:
    """The loss arithmetic, and in words what was captured but could not be written."""
    if failed:
        failed += monitor.read_events()
    for event in failed:
        sys.stderr.write(text.line(event) + "\n")
    counts = [event.error_count for event in failed if isinstance(event, FsErrorEvent)]
    _say(str(monitor.statistics().without_output(sum(counts), len(counts))))


def _say(line: str) -> None:
    print(f"fserr-bpf: {line}", file=sys.stderr, flush=True)


@contextmanager
def _stop_signals() -> Iterator[int]:
    """A descriptor that becomes readable at the first stop signal; the second one kills."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # Written by the handler in C: one in Python would not run before poll(2) returns,
    # and a signal that comes just before poll(2) does not make it return.
    before = signal.set_wakeup_fd(writer)

    def kill_next_time(*_: object) -> None:
        for number in _STOP:
            signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, kill_next_time) for number in _STOP}
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
