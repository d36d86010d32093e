"""``report.json``: every judged cell, for programs; `docs/compare-report.md` is its schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from compare.cells import Judged, Outcome
from compare.report.run import Run

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
