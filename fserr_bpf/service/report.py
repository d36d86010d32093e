"""What a service says of itself and of what it watches, as one value: for the state file, for
metrics, for ``status``. docs/service.md has the keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from fserr_bpf.group.statistics import Statistics
from fserr_bpf.model.event import EventId
from fserr_bpf.model.state import FilesystemState
from fserr_bpf.outputs.state import to_dict
from fserr_bpf.outputs.text import printable
from fserr_bpf.service.output import OutputState
from fserr_bpf.service.statefile import VERSION
from fserr_bpf.uapi.dev import Dev

MESSAGE_BYTES = 80
"""As much as node-problem-detector shows of a message."""


class Counted(NamedTuple):
    """What errors are counted by: few values each, never a path, an inode or an address.

    ``dev`` is the superblock's, None for those of further file systems; by it labels are those of
    its state, whatever the names were when the error came.
    """

    dev: Dev | None
    device: str
    fstype: str
    mountpoint: str
    kind: str


class Identity(NamedTuple):
    """Which process it is; ``since_ns`` is when its probes were attached, since 1970 UTC."""

    pid: int
    version: str
    kernel: str
    stream: str
    since_ns: int


class Report(NamedTuple):
    """At ``time_ns``, since 1970 UTC. ``last`` is the number of the last message, if there is one.

    ``errors`` counts the errors of delivered events. ``blind`` is by reason.
    ``reload_failures`` counts configurations that were refused.
    """

    identity: Identity
    time_ns: int
    last: EventId
    blind: Mapping[str, list[str]]
    states: tuple[FilesystemState, ...]
    statistics: Statistics
    errors: Mapping[Counted, int]
    outputs: tuple[OutputState, ...]
    reload_failures: int

    @property
    def ok(self) -> bool:
        """Every file system is."""
        return all(state.ok for state in self.states)


def message(report: Report) -> str:
    """One line of at most MESSAGE_BYTES, printable ASCII."""
    bad = [state for state in report.states if not state.ok]
    if not bad:
        return f"{len(report.states)} file systems are ok"
    worst = bad[0]
    place = printable(worst.mount_points[0]) if worst.mount_points else worst.device
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    what = f": {worst.condition}{more}"
    line = place[: MESSAGE_BYTES - len(what)] + what
    return line.encode("ascii", "replace").decode()[:MESSAGE_BYTES]


def to_json(report: Report) -> bytes:
    """The state file: an object, each key of it on a line of its own."""
    return json.dumps(_to_dict(report), indent=1).encode() + b"\n"


def _to_dict(report: Report) -> dict[str, Any]:
    statistics = report.statistics
    return {
        "v": VERSION,
        "ok": report.ok,
        "message": message(report),
        **report.identity._asdict(),
        "time_ns": report.time_ns,
        "last": report.last._asdict(),
        "blind": report.blind,
        "file_systems": [to_dict(state) for state in report.states],
        "errors": {
            "seen": statistics.seen,
            "delivered": statistics.delivered,
            "merged": statistics.merged,
            "waiting": statistics.waiting,
            "dropped": {str(reason): count for reason, count in statistics.dropped.items()},
            "missed": dict(statistics.missed),
            "deaf": len(statistics.gaps),
        },
        "outputs": [output._asdict() for output in report.outputs],
        "reload_failures": report.reload_failures,
    }
