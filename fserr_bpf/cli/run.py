"""``fserr-bpf run``: watch file systems and write their errors as they happen."""

from __future__ import annotations

import argparse
import os
import select
import signal
import time
from contextlib import ExitStack
from typing import NamedTuple

from fserr_bpf.cli.marks import add_mark_options, marks_of
from fserr_bpf.cli.messages import Messages, Reader, StreamReader
from fserr_bpf.cli.options import add_paths, add_stream
from fserr_bpf.cli.ready import Readiness, add_ready
from fserr_bpf.cli.servicing import ServiceReader
from fserr_bpf.cli.watching import (
    announce,
    check_rights,
    has_terminal,
    needed_capabilities,
    say,
    stop_signals,
)
from fserr_bpf.errors import UsageError
from fserr_bpf.kernel.environment import require_procfs
from fserr_bpf.kernel.landlock import write_only_below
from fserr_bpf.kernel.privileges import drop
from fserr_bpf.marks.cgroups import find_cgroup, find_container
from fserr_bpf.model.mark import mark_of
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.sink import Sink
from fserr_bpf.service import config
from fserr_bpf.service.description import Description, Hook
from fserr_bpf.service.sequence import Sequence
from fserr_bpf.service.service import Running, make_folder

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
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read what to watch and where to write to from FILE, see fserr-bpf config; no other "
        "option but --ready-fd goes with it",
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal; returns 0. Raises FserrError subclasses."""
    with ExitStack() as stack:
        readiness = stack.enter_context(Readiness(arguments.ready_fd))
        description = _description(arguments)
        require_procfs()
        check_rights(description.user)
        _check(description)
        terminal = has_terminal()
        keeps = description.output is not None or bool(description.file)
        signals = stack.enter_context(stop_signals(hangup=not keeps))
        stop = _Stop(signals, terminal)
        sink = running = None
        if description.service:
            make_folder(description.service.folder)
            sequence = stack.enter_context(Sequence(description.service.folder))
            running = stack.enter_context(Running(description.service, description.user))
        else:
            sequence = stack.enter_context(Sequence(None))
            raw = description.format == "raw"
            sink = stack.enter_context(Sink(description.output, packets=raw))
            if not sink.has_reader:
                say(f"waiting for a reader of {sink.name}")
                if not sink.wait_for_reader(signals):
                    return 0
        monitor = stack.enter_context(_monitor(description, debug=arguments.debug))
        if description.user and monitor.looks_elsewhere:
            everywhere = description.all_namespaces
            what = "--all-namespaces needs" if everywhere else "marks through /proc/PID/root need"
            raise UsageError(f"{what} rights that --user gives up", "leave --user out")
        announce(monitor)
        if monitor.helper:
            monitor.helper.drop_rights(description.user, processes=monitor.looks_elsewhere)
        drop(description.user, needed_capabilities(monitor))
        reader: Reader
        if sink:
            form = FORMATS[description.format]
            messages = Messages(monitor, sequence, states=form.encode_more is not None)
            reader = StreamReader(sink, form)
        elif running:
            # another task's /proc is closed to who gave up to write
            if not monitor.looks_elsewhere and not running.lock(write_only_below):
                say("writing is not restricted further: this kernel has no Landlock")
            running.start()
            messages = Messages(monitor, sequence, states=True)
            reader = ServiceReader(monitor, running, description, sequence, readiness)
        readiness.signal()
        try:
            _loop(monitor, messages, reader, stop, readiness)
        finally:
            readiness.close()
            reader.account(monitor)
    return 0


def _description(arguments: argparse.Namespace) -> Description:
    """What the options say, or the file that they name."""
    marks = marks_of(arguments)
    description = Description(
        marks=tuple(marks) if marks else None,
        ignore=tuple(map(mark_of, arguments.ignore)),
        superblock=arguments.superblock_errors,
        all_namespaces=arguments.all_namespaces,
        cgroup=arguments.cgroup,
        container=arguments.container,
        stream=arguments.stream,
        detail=arguments.detail,
        user=arguments.user,
        format=arguments.format,
        output=arguments.output,
    )
    if arguments.config is None:
        return description
    if description != Description():
        raise UsageError(
            "options beside --config would say the same twice",
            f"write them into {arguments.config}",
        )
    return config.read(arguments.config)


def _check(description: Description) -> None:
    """What fits together, before anything is opened. Raises UsageError."""
    if description.detail and description.format == "raw" and description.stream != Stream.PROPOSED:
        raise UsageError(
            f"the raw stream {description.stream} has no details", "use --stream proposed"
        )
    for output in description.service.outputs if description.service else ():
        if isinstance(output, Hook):
            check_rights(output.user)


def _monitor(description: Description, *, debug: bool) -> Monitor:
    cgroup = None
    if description.cgroup is not None:
        cgroup = find_cgroup(description.cgroup)
    elif description.container is not None:
        cgroup = find_container(description.container)
    return Monitor(
        description.marks,
        description.stream,
        ignore=description.ignore,
        superblock=description.superblock,
        all_namespaces=description.all_namespaces,
        cgroup=cgroup,
        detail=description.detail,
        states=True,
        debug=debug,
    )


def _loop(
    monitor: Monitor, messages: Messages, reader: Reader, stop: _Stop, readiness: Readiness
) -> None:
    """Pump, give the reader what it has room for, sleep; until a signal in ``stop`` ends it."""
    stopping = False
    while True:
        messages.refresh()
        reader.take(messages)
        if stopping and not monitor.undecided:
            messages.look_again()
            reader.take(messages)
            return
        readiness.alive()
        masks = reader.masks(waiting=len(messages) > 0)
        others = masks if stopping else {stop.signals: select.POLLIN, **masks}
        ready = monitor.wait(_patience(reader, readiness), others)
        stopping |= stop.signals in ready and _ends(stop, reader)
        if ready & masks.keys() or _is_due(reader):
            messages.refresh()  # errors of the same moment go the way of those that fail
            reader.step(ready, waiting=len(messages) > 0)


def _is_due(reader: Reader) -> bool:
    return reader.due is not None and time.monotonic() >= reader.due


def _patience(reader: Reader, readiness: Readiness) -> float | None:
    """Seconds until something is due by itself; None for never."""
    due = [] if reader.due is None else [max(reader.due - time.monotonic(), 0)]
    due += [] if readiness.alive_seconds is None else [readiness.alive_seconds]
    return min(due, default=None)


def _ends(stop: _Stop, reader: Reader) -> bool:
    """Whether the signals that have come end it; SIGHUP may mean something else."""
    if set(os.read(stop.signals, _SIGNALS)) != {signal.SIGHUP}:
        return True
    if stop.terminal and not has_terminal():  # that is what SIGHUP says then
        return True
    return not reader.hang_up()
