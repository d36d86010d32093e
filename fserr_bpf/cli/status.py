"""``fserr-bpf status``: how each mounted file system is now, for people and for health checks.

Attaches nothing and needs no bcc. What a health check calls has to be quick: nothing of the
monitor is imported.
"""

from __future__ import annotations

import argparse
import json

from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.model.state import FilesystemState
from fserr_bpf.outputs.state import table, to_dict
from fserr_bpf.service.statefile import StateFile, running_service
from fserr_bpf.state.look import look
from fserr_bpf.state.superblocks import superblock_at, superblocks

EXIT_NOT_OK = 12
VERSION = 1


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "status",
        help="show how mounted file systems are now, without watching them",
        description="Show how mounted file systems are now, also if the error is older. "
        f"Exit code 0: all are ok; {EXIT_NOT_OK}: one is not, or does not answer.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="any path on a file system; default: all that are mounted from a block device",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 0 or EXIT_NOT_OK. Raises MarkError for a path that does not exist."""
    service = None
    if arguments.paths:
        named = {found.dev: found for found in map(superblock_at, arguments.paths)}
        states = look(named.values())
    else:
        service = running_service()
        states = _all(service)
    ok = all(state.ok for state in states)
    if arguments.json:
        report = {"v": VERSION, "ok": ok, "file_systems": [to_dict(state) for state in states]}
        report["service"] = service.about if service else None
        print(json.dumps(report))
    else:
        print(table(states))
        if service:
            print(service.in_words())
    return 0 if ok else EXIT_NOT_OK


def _all(service: StateFile | None) -> list[FilesystemState]:
    """As the service knows them, the others by asking."""
    found = list(superblocks(read_mounts()))
    known = {state.dev: state for state in service.states} if service else {}
    asked = {state.dev: state for state in look(f for f in found if f.dev not in known)}
    return [{**asked, **known}[each.dev] for each in found]
