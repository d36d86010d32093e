"""The command line: arguments to settings, settings to the monitor, errors to one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

from fserr_bpf import __version__
from fserr_bpf.errors import FserrError, OutputError
from fserr_bpf.kernel.environment import OUT_OF_DESCRIPTORS, out_of_descriptors

COMMANDS = {
    "run": "fserr_bpf.cli.run",
    "exec": "fserr_bpf.cli.exec",
    "watch-files": "fserr_bpf.cli.watch_files",
    "top": "fserr_bpf.cli.top",
    "config": "fserr_bpf.cli.config",
    "status": "fserr_bpf.cli.status",
    "doctor": "fserr_bpf.cli.doctor",
    "decode": "fserr_bpf.cli.decode",
    "symbolize": "fserr_bpf.cli.symbolize",
    "probes": "fserr_bpf.cli.probes",
    "compare": "fserr_bpf.cli.compare",
    "lab": "fserr_bpf.cli.lab",
}
"""Each with its module, in the order of the help."""
_STDOUT, _STDERR = 1, 2


def parser(names: Collection[str] = COMMANDS.keys()) -> argparse.ArgumentParser:
    """The grammar of ``fserr-bpf``, as far as these commands go."""
    whole = argparse.ArgumentParser(
        prog="fserr-bpf",
        description="FAN_FS_ERROR events from stock Linux kernels, byte for byte.",
    )
    whole.add_argument("--version", action="version", version=f"fserr-bpf {__version__}")
    whole.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        import_module(COMMANDS[name]).add_parser(commands)
    return whole


def _needed(argv: Sequence[str]) -> Collection[str]:
    """The command that is asked for: importing them all takes longer than to attach."""
    first = next((word for word in argv if not word.startswith("-")), "")
    return [first] if first in COMMANDS else COMMANDS.keys()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; user errors become one line."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser(_needed(words)).parse_args(words)
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
    except OSError as error:
        if arguments.debug or error.errno not in OUT_OF_DESCRIPTORS:
            raise
        print(f"fserr-bpf: {out_of_descriptors(error.errno)}", file=sys.stderr)
        return FserrError.exit_code
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
