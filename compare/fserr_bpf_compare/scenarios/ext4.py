"""What happens to ext4's metadata, and how its errors queue."""

from __future__ import annotations

import errno

from fserr_bpf_compare.faults import ext4
from fserr_bpf_compare.faults.fault import Expected
from fserr_bpf_compare.faults.mapper import DEVICE_FAULTS
from fserr_bpf_compare.scenarios import ends, ext4_mounts, ext4_queue, ext4_reports
from fserr_bpf_compare.scenarios.device import device_scenario
from fserr_bpf_compare.scenarios.scenario import Scenario, fault_scenario

_INODE = Expected(errno.EIO, "inode")
_SUPERBLOCK = Expected(errno.EIO, "sb")
_ERROR = r"EXT4-fs error \(device dm-\d+\): "
# Evidence and errors of ext4's rows in DEVICE_FAULTS.
_OF_DEVICE = {
    "ext4_device_lookup": (rf"{_ERROR}.* comm cat: ", (_INODE,)),
    "ext4_device_mkdir": (rf"{_ERROR}.* comm mkdir: ", (_SUPERBLOCK,)),
    # Data that is lost concerns ext4_end_bio() only, which warns.
    "ext4_device_writeback": (r"EXT4-fs warning \(device dm-\d+\): ext4_end_bio", ()),
    "ext4_device_journal": (rf"{_ERROR}.*Detected aborted journal", (_SUPERBLOCK,)),
}

SCENARIOS: tuple[Scenario, ...] = (
    *map(fault_scenario, ext4.FAULTS),
    *ext4_reports.SCENARIOS,
    *(
        device_scenario(fault, evidence, *errors)
        for fault in DEVICE_FAULTS
        if fault.fstype == "ext4"
        for evidence, errors in (_OF_DEVICE[fault.name],)
    ),
    *ext4_queue.SCENARIOS,
    *ext4_mounts.SCENARIOS,
    *ends.EXT4,
)
