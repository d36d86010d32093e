"""``fserr-bpf probes``: what can be seen on this kernel, and what cannot."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

from fserr_bpf.live.armed import Armed
from fserr_bpf.live.fanotify import kernel_accepts_fs_error
from fserr_bpf.live.probes import EXT4_EMITTERS, PROBES, Kind, ProbeSpec, wanted
from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.record import Probe

EXIT_BLIND = 11


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "probes",
        help="say what can be seen on this kernel",
        description="Attach every probe and say how, or why not, and what each stream "
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
    with Armed(list(Stream), debug=arguments.debug) as armed:
        group = not armed.kernel.kprobes and kernel_accepts_fs_error()
        report: dict[str, Any] = {
            "v": 1,
            "kernel": platform.release(),
            "kprobes": armed.kernel.kprobes,
            "fserror": armed.kernel.fserror,
            "probes": [_row(spec, armed, group) for spec in PROBES if spec.probe in armed.wanted],
            "blind": {s: armed.blind(s, kernel_group=group) for s in Stream},
        }
    print(json.dumps(report, indent=2) if arguments.json else _table(report))
    return EXIT_BLIND if report["blind"][arguments.stream] else 0


def _row(spec: ProbeSpec, armed: Armed, group: bool) -> dict[str, Any]:
    attached = [a for a in armed.attached if a.probe is spec.probe]
    row: dict[str, Any] = {
        "probe": spec.probe.name.lower(),
        "attached": [{"as": a.kind, "target": a.target} for a in attached],
        "reason": armed.failed.get(spec.probe),
        "streams": [s for s in Stream if spec.probe in wanted(s, armed.kernel)],
        "sees": spec.blind,
    }
    if group and not attached and spec.probe in EXT4_EMITTERS | {Probe.FSERROR}:
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
