"""The command line: arguments to settings, settings to the monitor, errors to one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fserr_bpf import __version__
from fserr_bpf.cli import compare, decode, exec, lab, probes, run, symbolize, top, watch_files
from fserr_bpf.errors import FserrError, OutputError

_STDOUT, _STDERR = 1, 2


def parser() -> argparse.ArgumentParser:
    """The whole grammar of ``fserr-bpf``."""
    whole = argparse.ArgumentParser(
        prog="fserr-bpf",
        description="FAN_FS_ERROR events from stock Linux kernels, byte for byte.",
    )
    whole.add_argument("--version", action="version", version=f"fserr-bpf {__version__}")
    whole.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (run, exec, watch_files, top, decode, symbolize, probes, compare, lab):
        module.add_parser(commands)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; user errors become one line."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.function(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # "| head" has seen enough
        # what is still buffered must not fail again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OutputError.exit_code
    except FserrError as error:
        if arguments.debug:
            raise
        print(f"fserr-bpf: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _fill_standard_descriptors() -> None:
    """Nothing of ours may get the number of a standard descriptor that is closed.

    Close-on-exec: those of a client of ``exec`` stay closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STDOUT, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(_STDERR, "w", errors="backslashreplace", closefd=False)


def entry() -> None:
    """Console script."""
    _fill_standard_descriptors()
    sys.exit(main())
