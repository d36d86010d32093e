"""``report.json``: every judged cell, for programs; `docs/compare-report.md` is its schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fserr_bpf_compare.report.run import Run
from fserr_bpf_compare.verdict.cells import Cell, Difference, Judged, Level, Outcome

VERSION = 1


def render(judged: Sequence[Judged], run: Run) -> str:
    """The document as ASCII; bytes are hexadecimal, levels and outcomes are names."""
    counts = Counter(one.outcome for one in judged)
    document = {
        "v": VERSION,
        "run": run._asdict() | {"started": run.started.isoformat(timespec="seconds")},
        "totals": {str(outcome): counts[outcome] for outcome in Outcome},
        "cells": [_judged(one) for one in judged],
    }
    return json.dumps(document, indent=1) + "\n"


def read(text: str) -> tuple[list[Judged], Run]:
    """The inverse of `render`; KeyError, TypeError or ValueError for anything else."""
    known = json.loads(text)
    if known["v"] != VERSION:
        raise ValueError(f"version {known['v']}")
    run = known["run"]
    started = datetime.fromisoformat(run["started"])
    return (
        [_read(one) for one in known["cells"]],
        Run(**run | {"command": tuple(run["command"]), "started": started}),
    )


def _read(fields: Mapping[str, Any]) -> Judged:
    reached = fields["reached"]
    return Judged(
        cell=Cell.from_json(fields["cell"]),
        outcome=Outcome(fields["outcome"]),
        promised=Level[fields["promised"]],
        reached=None if reached is None else Level[reached],
        differences=tuple(Difference(**difference) for difference in fields["differences"]),
        tolerated=tuple(fields["tolerated"]),
        reason=fields["reason"],
    )


def _judged(judged: Judged) -> dict[str, Any]:
    return {
        "cell": judged.cell.to_json(),
        "outcome": str(judged.outcome),
        "promised": judged.promised.name,
        "reached": judged.reached.name if judged.reached is not None else None,
        "differences": [difference._asdict() for difference in judged.differences],
        "tolerated": list(judged.tolerated),
        "reason": judged.reason,
    }
