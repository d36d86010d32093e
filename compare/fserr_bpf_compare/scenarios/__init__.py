"""Every scenario, as one table in the order in which they run."""

from __future__ import annotations

from fserr_bpf_compare.scenarios import ext4, fanotify, generic, proposed, xfs
from fserr_bpf_compare.scenarios.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *ext4.SCENARIOS,
    *xfs.SCENARIOS,
    *generic.SCENARIOS,
    *fanotify.SCENARIOS,
    *proposed.SCENARIOS,
)
