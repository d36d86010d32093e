"""``fserr-bpf probes``: what can be seen on this kernel, and what cannot."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any

from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.text import printable
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.probes.canary import Canary
from fserr_bpf.probes.table import EXT4_EMITTERS, PROBES, Kind, ProbeSpec, wanted
from fserr_bpf.uapi.record import Probe

EXIT_BLIND = 11


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "probes",
        help="show what can be seen on this kernel",
        description="Attach every probe; print how, or why not, and what each stream "
        f"cannot see here. Exit code 0: the stream sees everything; {EXIT_BLIND}: it does not.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--stream",
        type=Stream,
        choices=list(Stream),
        default=Stream.PROPOSED,
        help="the stream that decides the exit code (default: proposed)",
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 0 or EXIT_BLIND. Raises FserrError subclasses."""
    with AttachedProbes(list(Stream), debug=arguments.debug) as attached:
        report = report_of(attached)
        for note in attached.notes:
            print(f"fserr-bpf: {printable(note)}", file=sys.stderr)
    print(json.dumps(report, indent=2) if arguments.json else _table(report))
    return EXIT_BLIND if report["blind"][arguments.stream] else 0


def report_of(attached: AttachedProbes) -> dict[str, Any]:
    """What ``--json`` prints; probes that are attached and do not run see nothing."""
    group = not attached.kernel.kprobes and kernel_accepts_fs_error()
    blind = {stream: attached.blind(stream, kernel_group=group) for stream in Stream}
    if any(one.probe is Probe.CANARY for one in attached.probes):
        with Canary(attached.ring) as canary:
            if not canary.sings():
                off = " and ".join(canary.switched_off())
                why = f"{off} is 0" if off else "the kernel runs no kprobe"
                for missing in blind.values():
                    missing[why] = ["any error"]
    return {
        "v": 1,
        "kernel": platform.release(),
        "kprobes": attached.kernel.kprobes,
        "fserror": attached.kernel.fserror,
        "probes": [_row(spec, attached, group) for spec in PROBES if spec.probe in attached.wanted],
        "blind": blind,
    }


def _row(spec: ProbeSpec, attached: AttachedProbes, group: bool) -> dict[str, Any]:
    here = [a for a in attached.probes if a.probe is spec.probe]
    row: dict[str, Any] = {
        "probe": spec.probe.name.lower(),
        "attached": [{"as": a.kind, "target": a.target} for a in here],
        "reason": attached.failed.get(spec.probe),
        "streams": [s for s in Stream if spec.probe in wanted(s, attached.kernel)],
        "sees": spec.sees,
    }
    if group and not here and spec.probe in EXT4_EMITTERS | {Probe.FSERROR}:
        row["attached"] = [{"as": Kind.GROUP, "target": "FAN_FS_ERROR"}]
        row["reason"] = None
    return row


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"kernel {report['kernel']}: "
        f"{'kprobes' if report['kprobes'] else 'no kprobes'}, "
        f"{'reports errors by itself (fserror)' if report['fserror'] else 'no fserror'}",
        "",
        f"{'probe':<20} {'attached as':<60} streams",
    ]
    for row in report["probes"]:
        how = ", ".join(a["target"] for a in row["attached"])
        how = f"{row['attached'][0]['as']} {how}" if how else f"not: {row['reason']}"
        streams = " ".join(row["streams"])
        lines.append(f"{row['probe']:<20} {how:<60} {streams}")
    for stream, missing in report["blind"].items():
        lines += ["", f"stream {stream}: " + ("cannot see" if missing else "sees everything")]
        lines += [f"  {what}: {why}" for why, whats in missing.items() for what in whats]
    return "\n".join(lines)
