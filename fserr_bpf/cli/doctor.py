"""``fserr-bpf doctor``: whether this host can be watched, and what is in the way.

The self-test is in ``compare/``, which nobody else should pay for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from fserr_bpf.doctor.filesystems import look_at_filesystems
from fserr_bpf.doctor.finding import Finding, Level
from fserr_bpf.doctor.host import look_at_host
from fserr_bpf.doctor.probes import look_at_probes
from fserr_bpf.errors import FserrError
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.state import to_dict
from fserr_bpf.outputs.text import printable
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.state.look import look
from fserr_bpf.state.superblocks import superblock_at, superblocks

EXIT_PROBLEM = 13
VERSION = 1
_ENDS = (signal.SIGTERM, signal.SIGHUP)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="check whether this host can be watched, and what is in the way",
        description="Check kernel, probes and file systems, and cause real errors on scratch "
        "images to check that probes report them. "
        f"Exit code 0: no problem; {EXIT_PROBLEM}: one at least.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="any path on a file system; default: all that are mounted from a block device",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--no-self-test",
        action="store_true",
        help="cause no errors; else ext4, XFS and btrfs images are broken on a tmpfs",
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; 0 or EXIT_PROBLEM. Raises MarkError for a path that does not exist."""
    for number in _ENDS:  # what the self-test has made is to be taken away
        signal.signal(number, _interrupt)
    if arguments.paths:
        found = list({each.dev: each for each in map(superblock_at, arguments.paths)}.values())
    else:
        found = list(superblocks(read_mounts()))
    states = look(found)
    findings = [*look_at_host(), *look_at_filesystems(found, states)]
    tests: list[dict[str, Any]] = []
    try:
        findings += _with_probes(arguments, tests)
    except FserrError as error:
        findings.append(Finding(Level.PROBLEM, "probes", error.cause, error.remedy))
    ok = all(finding.level is not Level.PROBLEM for finding in findings)
    if arguments.json:
        report = {
            "v": VERSION,
            "ok": ok,
            "kernel": os.uname().release,
            "findings": [finding._asdict() for finding in findings],
            "file_systems": [to_dict(state) for state in states],
            "self_test": tests,
        }
        print(json.dumps(report, indent=2))
    else:
        print(_table(findings))
    return 0 if ok else EXIT_PROBLEM


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _with_probes(arguments: argparse.Namespace, tests: list[dict[str, Any]]) -> list[Finding]:
    from fserr_bpf_compare import selftest  # noqa: PLC0415

    if not arguments.no_self_test:
        selftest.load_all()
    with AttachedProbes(list(Stream), debug=arguments.debug) as attached:
        group = not attached.kernel.kprobes and kernel_accepts_fs_error()
        findings = list(look_at_probes(attached, kernel_group=group))
        if arguments.no_self_test:
            remedy = "leave --no-self-test out"
            words = "not done: whether the probes report errors is not known"
            return [*findings, Finding(Level.NOTE, "self-test", words, remedy)]
        if not arguments.json:
            print("fserr-bpf: breaking scratch images", file=sys.stderr, flush=True)
        for tested in selftest.self_test(attached):
            tests.append(tested._asdict())
            findings += _tested(tested)
        return findings


def _tested(tested: Any) -> Iterator[Finding]:
    """What the self-test of one file system says."""
    subject = f"self-test {tested.fstype}"
    if tested.problem:
        yield Finding(Level.NOTE, subject, f"not done: {tested.problem}")
        return
    if tested.heard:
        yield Finding(Level.OK, subject, f"{tested.fault} reported by {', '.join(tested.heard)}")
    elif tested.logged:
        words = f"{tested.fault} is in the kernel log, and no probe has reported it"
        yield Finding(Level.PROBLEM, subject, words, "report it with fserr-bpf doctor --json")
    else:
        yield Finding(Level.NOTE, subject, f"{tested.fault} could not be caused here")
    words = {
        True: "this kernel sends FAN_FS_ERROR itself",
        False: "this kernel takes the mark and sends no FAN_FS_ERROR: only probes report errors",
        None: "this kernel refuses the mark: only probes report errors",
    }[tested.kernel]
    yield Finding(Level.OK if tested.kernel else Level.NOTE, subject, words)


def _table(findings: list[Finding]) -> str:
    width = max(len(printable(finding.subject)) for finding in findings)
    lines = []
    for level, subject, finding, remedy in findings:
        lines.append(f"{level:<8} {printable(subject):<{width}}  {printable(finding)}")
        if remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {printable(remedy)}")
    return "\n".join(lines)
