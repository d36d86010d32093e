"""``fserr-bpf exec``: run a fanotify client, unchanged, on the emulated stream."""

from __future__ import annotations

import argparse
from functools import partial

from fserr_bpf.cli.options import add_stream
from fserr_bpf.errors import UsageError
from fserr_bpf.exec.fork import become_client
from fserr_bpf.exec.serve import Settings, serve
from fserr_bpf.probes.attached import check_privileges


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "exec",
        help="run a fanotify client on the emulated stream",
        description="Run CLIENT with its fanotify groups taken over that ask for FAN_FS_ERROR, so "
        "that they get events that this kernel does not send. It starts when the probes are "
        "attached and keeps its pid, terminal, signals and exit status.",
    )
    add_stream(parser)
    parser.add_argument(
        "--exact",
        action="store_true",
        help="a costlier descriptor: many events per read, EINVAL for small buffers, order "
        "as in the kernel",
    )
    parser.add_argument(
        "--report-takeover",
        action="store_true",
        help="print each call that could matter on standard error, and whether it was emulated or "
        "let through",
    )
    parser.add_argument("client", metavar="CLIENT", nargs="?", help="the program, found in PATH")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER)
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Become the client; only failures return. Raises FserrError subclasses."""
    if not arguments.client:
        raise UsageError(
            "exec needs a program to run", "give one: fserr-bpf exec -- CLIENT [ARG ...]"
        )
    check_privileges()
    settings = Settings(
        stream=arguments.stream,
        exact=arguments.exact,
        report=arguments.report_takeover,
        debug=arguments.debug,
    )
    become_client(
        [arguments.client, *arguments.arguments], partial(serve, settings), debug=arguments.debug
    )
