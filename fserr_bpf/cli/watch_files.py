"""``fserr-bpf watch-files``: errors of the data of files, and a command that is run for each."""

from __future__ import annotations

import argparse
import select
import sys
from contextlib import ExitStack

from fserr_bpf.cli.options import seconds
from fserr_bpf.cli.ready import Readiness, add_ready
from fserr_bpf.cli.watching import check_rights, say, stop_signals
from fserr_bpf.errors import UsageError
from fserr_bpf.group.hearing import in_words
from fserr_bpf.hooks.hook import Hooks, Intervals
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.privileges import drop
from fserr_bpf.outputs.sink import Sink
from fserr_bpf.watchfiles.fileerror import FORMATS
from fserr_bpf.watchfiles.globs import Glob
from fserr_bpf.watchfiles.source import FileErrors
from fserr_bpf.watchfiles.watch import Watch

_TIMEOUT = 30.0  # seconds for one hook


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "watch-files",
        help="report failed writes to chosen files and run a command for each",
        description="Write a line, and run a command, for each error of the data of files "
        "whose path matches; until Ctrl-C or SIGTERM. Files that are created, renamed or removed "
        "meanwhile count by their path at the moment of the error.",
    )
    parser.add_argument(
        "--glob",
        action="append",
        required=True,
        metavar="GLOB",
        help="paths, with * ? [...] and ** for any number of folders; quote it; may be given "
        "several times",
    )
    parser.add_argument(
        "--on-error",
        metavar="CMD",
        help="run this by sh for each error, with FSERR_PATH, FSERR_ERRNO and others in its "
        "environment",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=_TIMEOUT,
        metavar="S",
        help=f"seconds for one run of CMD (default: {_TIMEOUT:g})",
    )
    parser.add_argument(
        "--interval",
        type=seconds,
        metavar="S",
        help="run CMD for the same file once in S seconds at most; errors meanwhile share the "
        "next run",
    )
    parser.add_argument(
        "--interval-all",
        type=seconds,
        metavar="S",
        help="run CMD once in S seconds at most, whatever the file; errors meanwhile share the "
        "next run",
    )
    parser.add_argument(
        "--hook-user",
        metavar="NAME",
        help="run CMD as this user; default: as the user who started this, with all rights",
    )
    parser.add_argument("--format", choices=sorted(FORMATS), default="text")
    add_ready(parser)
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal; returns 0. Raises FserrError subclasses."""
    check_rights(arguments.hook_user)
    intervals = Intervals(arguments.interval or 0.0, arguments.interval_all or 0.0)
    if any(intervals) and arguments.on_error is None:
        raise UsageError("intervals are for hooks, and there is none", "add --on-error CMD")
    globs = [Glob(text) for text in arguments.glob]
    with ExitStack() as stack:
        readiness = stack.enter_context(Readiness(arguments.ready_fd))
        sink = stack.enter_context(Sink(None))
        stop = stack.enter_context(stop_signals())
        hooks = None
        if arguments.on_error is not None:  # before the rights are given up: it keeps them
            hooks = stack.enter_context(
                Hooks(arguments.on_error, arguments.timeout, arguments.hook_user, intervals)
            )
        source = stack.enter_context(FileErrors(globs, debug=arguments.debug))
        _announce(source, globs)
        source.helper.drop_rights(None)
        drop(None, [Capability.DAC_READ_SEARCH])  # new mounts are followed
        watch = Watch(globs, source, hooks, sink, FORMATS[arguments.format])
        readiness.signal()
        try:
            _loop(watch, stop)
        finally:
            readiness.close()
            _account(watch, source, hooks)
    return 0


def _announce(source: FileErrors, globs: list[Glob]) -> None:
    names = ", ".join(f"{m.mount_point} ({m.fstype} on {m.device})" for m in source.marks)
    say(f"watching {names or 'nothing yet'} for {' '.join(glob.text for glob in globs)}")
    for glob, fstype in source.marks.strays():
        say(f"{glob.text}: {glob.prefix} is on {fstype}, whose errors are not seen")


def _loop(watch: Watch, stop: int) -> None:
    stopping = False
    while True:
        watch.step()
        for line in watch.news():
            say(line)
        if stopping and not watch.is_busy():
            return
        ready = watch.wait({} if stopping else {stop: select.POLLIN})
        if stop in ready:
            stopping = True
            watch.stop()


def _account(watch: Watch, source: FileErrors, hooks: Hooks | None) -> None:
    """Account for every error; write what was not written on standard error."""
    for line in watch.news():
        say(line)
    for unwritten in watch.unwritten():
        sys.stderr.write(unwritten.decode())
    sys.stderr.flush()
    missed = sum(source.missed().values())
    parts = [str(watch.counts), f"{source.lost()} lost", f"{missed} missed by probes"]
    if gaps := source.gaps():
        parts.append(in_words(gaps))
    if hooks:
        parts.append(str(hooks.counts()))
    say("; ".join(parts))
