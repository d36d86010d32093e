"""Options of the commands that watch, for what they watch: marks, namespaces and cgroups."""

from __future__ import annotations

import argparse
from typing import Any

from fserr_bpf.marks.cgroups import find_cgroup, find_container
from fserr_bpf.model.mark import Mark, MarkKind, SuperblockErrors, mark_of


def add_mark_options(parser: argparse.ArgumentParser) -> None:
    """--mark, --ignore, --superblock-errors, --all-namespaces, --cgroup, --container."""
    kinds = "|".join(MarkKind)
    parser.add_argument(
        "--mark",
        action="append",
        default=[],
        metavar="KIND:PATH",
        help=f"watch a part of a file system; KIND is {kinds}; may be given several times",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="KIND:PATH",
        help="drop the errors that such a mark would receive; may be given several times",
    )
    parser.add_argument(
        "--superblock-errors",
        type=SuperblockErrors,
        choices=list(SuperblockErrors),
        default=SuperblockErrors.FILESYSTEM,
        help="which marks receive errors of which no inode is known: those on a file "
        "system (default), or all",
    )
    parser.add_argument(
        "--all-namespaces",
        action="store_true",
        help="without paths: also watch file systems that are mounted in other mount "
        "namespaces, as those of containers are",
    )
    cgroup = parser.add_mutually_exclusive_group()
    cgroup.add_argument(
        "--cgroup", metavar="PATH", help="only errors of this cgroup and those below it"
    )
    cgroup.add_argument(
        "--container", metavar="NAME_OR_ID", help="only errors of the cgroup of this container"
    )


def marks_of(arguments: argparse.Namespace) -> list[Mark] | None:
    """Plain paths, which are marks on file systems, and --mark; None without any."""
    return [*map(Mark.filesystem, arguments.paths), *map(mark_of, arguments.mark)] or None


def visibility_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Further arguments of ``Monitor``. Raises UsageError, also for a cgroup that is missing."""
    cgroup = None
    if arguments.cgroup is not None:
        cgroup = find_cgroup(arguments.cgroup)
    elif arguments.container is not None:
        cgroup = find_container(arguments.container)
    return {
        "ignore": [mark_of(text) for text in arguments.ignore],
        "superblock": arguments.superblock_errors,
        "cgroup": cgroup,
        "all_namespaces": arguments.all_namespaces,
    }
