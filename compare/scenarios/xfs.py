"""What happens to XFS's metadata."""

from __future__ import annotations

from compare.faults import xfs
from compare.mapper import DEVICE_FAULTS
from compare.scenario import Scenario, fault_scenario
from compare.scenarios.device import device_scenario

# No kernel reports these: 7.x has health code for corrupt metadata, not for unreadable
# metadata, and a log that cannot be written shuts down by itself (xlog_force_shutdown()).
_DEVICE_EVIDENCE = {
    "xfs_device_inode": r"XFS \(dm-\d+\): metadata I/O error",
    "xfs_device_log": r"XFS \(dm-\d+\): [Ll]og I/O [Ee]rror",
}

SCENARIOS: tuple[Scenario, ...] = (
    *map(fault_scenario, xfs.FAULTS),
    *(
        device_scenario(fault, _DEVICE_EVIDENCE[fault.name])
        for fault in DEVICE_FAULTS
        if fault.fstype == "xfs"
    ),
)
