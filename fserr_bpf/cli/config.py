"""``fserr-bpf config``: the file of ``run --config``, checked or made."""

from __future__ import annotations

import argparse

from fserr_bpf.service import config


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "config",
        help="check a configuration of run, or print an example",
        description="The configuration that run --config reads.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="say what is wrong in FILE, with line and key",
        description="Read FILE as run --config would; exit code 2 and one line if it is wrong.",
    )
    check.add_argument("file", metavar="FILE")
    check.set_defaults(function=_check)
    example = actions.add_parser(
        "example",
        help="print a configuration with every key, commented",
        description="Print a configuration with every key, commented.",
    )
    example.set_defaults(function=_example)


def _check(arguments: argparse.Namespace) -> int:
    description = config.read(arguments.file)
    outputs = description.service.outputs if description.service else ()
    names = [output.name for output in outputs]
    if description.service and description.service.prometheus:
        names.append("prometheus")
    print(f"{arguments.file} is right; outputs: {', '.join(names) or 'none but the state file'}")
    return 0


def _example(_: argparse.Namespace) -> int:
    print(config.example(), end="")
    return 0
