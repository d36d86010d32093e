"""What happens to XFS's metadata."""

from __future__ import annotations

from fserr_bpf_compare.faults import xfs
from fserr_bpf_compare.faults.mapper import DEVICE_FAULTS
from fserr_bpf_compare.scenarios import ends
from fserr_bpf_compare.scenarios.device import device_scenario
from fserr_bpf_compare.scenarios.scenario import Scenario, fault_scenario

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
    *ends.XFS,
)
