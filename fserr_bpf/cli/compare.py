"""``fserr-bpf compare``: our stream beside the kernel's own, by kernels and scenarios.

The harness is imported by the functions that need it: no other command should pay for it.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from fserr_bpf import __version__
from fserr_bpf.errors import BccError, FserrError, KernelError, PrivilegeError, UsageError
from fserr_bpf.model.stream import Stream

_TIMEOUT = 1800.0  # seconds for one kernel: emulated machines are slow
_JOBS = 2
_BROKEN = 2
_NOT_RUN = 3
# This machine or kernel cannot do it: that says nothing about the streams.
_CANNOT = (PrivilegeError, KernelError, BccError)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the grammar of this command; ``function`` runs it."""
    parser = subparsers.add_parser(
        "compare",
        help="compare with the kernel's own fanotify events",
        description="Cause real errors on scratch file systems and compare what a fanotify "
        "group of the kernel and the emulated one deliver, byte for byte; with --images use "
        "damaged file systems that others made. "
        "Exit status 0: the same at the promised level; 1: a difference; 2: the harness "
        "broke; 3: not run.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--here", action="store_true", help="on the running kernel (default)")
    where.add_argument(
        "--kernel",
        action="extend",
        nargs="+",
        metavar="K",
        help="these: names from lab list, paths of bzImages (with a slash), here",
    )
    where.add_argument(
        "--offline",
        nargs=2,
        type=Path,
        metavar=("REAL", "EMULATED"),
        help="compare two captured raw streams; needs no root",
    )
    where.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument(
        "--images",
        action="extend",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="play these images of damaged file systems, and those in folders, not scenarios",
    )
    parser.add_argument(
        "--modules", type=Path, metavar="DIR", help="lib/modules/RELEASE of a bzImage"
    )
    parser.add_argument(
        "--scenario",
        action="extend",
        nargs="+",
        metavar="S",
        help="only these; patterns such as 'xfs_*'",
    )
    parser.add_argument(
        "--stream", choices=[str(s) for s in Stream], help="default: the one the kernel sends"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write HTML, JSON and JUnit XML")
    parser.add_argument("--capture", type=Path, metavar="DIR", help="keep the raw streams")
    parser.add_argument("--jobs", type=int, default=_JOBS, metavar="N", help="machines at a time")
    parser.add_argument(
        "--timeout", type=float, default=_TIMEOUT, metavar="S", help="seconds for one kernel"
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Return 0, 1, 2 or 3 as the description says, whatever happens."""
    try:
        return _run(arguments)
    except FserrError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"fserr-bpf: {error}", file=sys.stderr)
        return _NOT_RUN if isinstance(error, _CANNOT) else _BROKEN
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception:  # a bug must not look like a difference, which is 1
        traceback.print_exc()
        return _BROKEN


def _run(arguments: argparse.Namespace) -> int:
    from fserr_bpf_compare import command  # noqa: PLC0415
    from fserr_bpf_compare.report import offline  # noqa: PLC0415

    if arguments.images and (arguments.scenario or arguments.offline or arguments.list):
        raise UsageError(
            "--images is instead of scenarios", "leave out --scenario, --list and --offline"
        )
    if arguments.offline:
        return offline.main(*arguments.offline, colour=sys.stdout.isatty())
    if arguments.list:
        return command.list_scenarios()
    return command.run(
        command.Request(
            kernels=tuple(arguments.kernel or ()),
            modules=arguments.modules,
            scenarios=tuple(arguments.scenario or ()),
            images=tuple(arguments.images or ()),
            stream=Stream(arguments.stream) if arguments.stream else None,
            report=arguments.report,
            capture=arguments.capture,
            jobs=arguments.jobs,
            timeout=arguments.timeout,
            words=tuple(sys.argv[1:]),
            version=__version__,
        )
    )
