"""Whether this kernel and this machine can run a scenario: asked, never taken from a version."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.errors import FserrError
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.kernel.kallsyms import KALLSYMS
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.fanotify import (
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FD_ERROR,
    FAN_REPORT_NAME,
    FAN_REPORT_PIDFD,
    FAN_REPORT_TARGET_FID,
)
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
from fserr_bpf_compare.faults import mapper
from fserr_bpf_compare.faults.scratch import scratch
from fserr_bpf_compare.scenarios.scenario import Need, Scenario

_FLAGS = {
    Need.PIDFD: FAN_REPORT_PIDFD,
    Need.FD_ERROR: FAN_REPORT_FD_ERROR,
    Need.PATCHED: FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION,
    Need.TARGET_FID: FAN_REPORT_DIR_FID | FAN_REPORT_NAME | FAN_REPORT_TARGET_FID,
}
# Of the Debian packages e2fsprogs, xfsprogs, btrfs-progs, f2fs-tools, dmsetup and util-linux.
_TOOLS = {
    "ext4": ("mkfs.ext4", "debugfs", "dumpe2fs"),
    "xfs": ("mkfs.xfs", "xfs_db", "xfs_io"),
    "generic": ("mkfs.ext4", "mkfs.xfs", "xfs_io"),
    "fanotify": ("mkfs.ext4", "debugfs", "unshare"),
    "proposed": ("mkfs.ext4", "debugfs", "mkfs.xfs", "xfs_db", "xfs_io"),
}


class Lack(NamedTuple):
    """Why a scenario is not run; ``machine`` if the reason is this machine, not the kernel."""

    reason: str
    machine: bool = False


def lack(scenario: Scenario, attached: AttachedProbes) -> Lack | None:
    """The first thing that ``scenario`` needs and that is not here."""
    for tool in _TOOLS[scenario.area]:
        if _missing(tool):
            return Lack(f"{tool} is not installed", machine=True)
    for need in sorted(scenario.needs):
        found = _CHECKS[need](attached) if need in _CHECKS else _refused(_FLAGS[need], need)
        if found:
            return found
    return None


def is_patched() -> bool:
    """Whether this kernel has the series of ``kernel-patch/``."""
    return _refused(FAN_REPORT_DETAILED_ERROR, "") is None


def _missing(tool: str) -> bool:
    return shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None


def _refused(flags: int, name: str) -> Lack | None:
    try:
        FanotifyGroup(flags).close()
    except FserrError:
        return Lack(f"this kernel has no {name}")
    return None


def _device_mapper(_attached: AttachedProbes) -> Lack | None:
    if reason := mapper.unavailable():
        return Lack(reason)
    if _missing("dmsetup"):
        return Lack("dmsetup is not installed", machine=True)
    return None


def _simulate_fail(_attached: AttachedProbes) -> Lack | None:
    with scratch("ext4") as fs:  # every mounted ext4 has it or none
        if not Path(f"/sys/fs/ext4/{fs.device_name}/simulate_fail").exists():
            return Lack("this kernel has no CONFIG_EXT4_DEBUG")
    return None


def _probes(attached: AttachedProbes) -> Lack | None:
    if not attached.kernel.kprobes:
        return Lack("this kernel has no kprobes: the emulated ext4 events would be its own")
    return None


def _type(fstype: str) -> Lack | None:
    known = Path("/proc/filesystems").read_text().split()
    if fstype not in known and subprocess.run(["modprobe", "-q", fstype], check=False).returncode:
        return Lack(f"this kernel has no {fstype}")
    if _missing(f"mkfs.{fstype}"):
        return Lack(f"mkfs.{fstype} is not installed", machine=True)
    return None


def _unlinked_list(_attached: AttachedProbes) -> Lack | None:
    # kernel 6.0 has the lists in memory too, and compares: this function came with that
    if b" xfs_iunlink_log_inode" not in Path(KALLSYMS).read_bytes():
        return Lack("this kernel's XFS does not look at its lists of unlinked inodes")
    return None


_CHECKS: dict[Need, Callable[[AttachedProbes], Lack | None]] = {
    Need.DEVICE_MAPPER: _device_mapper,
    Need.SIMULATE_FAIL: _simulate_fail,
    Need.PROBES: _probes,
    Need.BTRFS: lambda _: _type("btrfs"),
    Need.F2FS: lambda _: _type("f2fs"),
    Need.UNLINKED_LIST: _unlinked_list,
}
