"""Every scenario, as one table in the order in which they are played."""

from __future__ import annotations

from compare.scenario import Scenario
from compare.scenarios import ext4, fanotify, generic, proposed, xfs

SCENARIOS: tuple[Scenario, ...] = (
    *ext4.SCENARIOS,
    *xfs.SCENARIOS,
    *generic.SCENARIOS,
    *fanotify.SCENARIOS,
    *proposed.SCENARIOS,
)
