"""A snapshot as one JSON object for scripts: ``docs/top.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.outputs.schema import to_dict
from fserr_bpf.outputs.state import to_dict as state_dict
from fserr_bpf.top.model import Order, Snapshot, ranked

VERSION = 1


class Seen(NamedTuple):
    """What the monitor says around a snapshot.

    ``lost``: errors that are in no event, by reason. ``missed``: runs that the kernel skipped,
    by probe. ``blind``: what this kernel hides, by reason.
    """

    stream: str
    seconds: float
    lost: Mapping[str, int]
    missed: Mapping[str, int]
    blind: Mapping[str, list[str]]


def dumps(snapshot: Snapshot, seen: Seen) -> str:
    """One line of ASCII, rows with the most errors first, events newest first."""
    report: dict[str, Any] = {
        "v": VERSION,
        "stream": seen.stream,
        "seconds": round(seen.seconds, 3),
        "errors": snapshot.errors,
        "states": [state_dict(state) for state in snapshot.states.values()],
        "file_systems": [
            {
                **row.what._asdict(),
                "fsid": str(row.what.fsid),
                "watched": row.what.key in snapshot.watched,
                "errors": row.errors,
                "last_ns": row.last_ns,
            }
            for row in ranked(snapshot.file_systems, Order.COUNT)
        ],
        "sites": [
            {
                **row.what._asdict(),
                "errno": errno_name(row.what.error),
                "errors": row.errors,
                "last_ns": row.last_ns,
            }
            for row in ranked(snapshot.sites, Order.COUNT)
        ],
        "events": [to_dict(event) for event in snapshot.events],
        "forgotten": {
            "file_systems": snapshot.forgotten_file_systems._asdict(),
            "sites": snapshot.forgotten_sites._asdict(),
            "events": snapshot.forgotten_events,
        },
        "lost": seen.lost,
        "missed": seen.missed,
        "blind": seen.blind,
    }
    return json.dumps(report, default=bytes.hex)
