"""Data that cannot be written back, because the device ends in front of it."""

from __future__ import annotations

import errno

from fserr_bpf_compare.faults.cutting import (
    MKFS_OPTIONS,
    PAYLOAD,
    WRITEBACK_LOG,
    cut,
    last_victim,
    write_victims,
)
from fserr_bpf_compare.faults.fault import (
    Expected,
    Fault,
    TriggerProcess,
    nothing,
    run_child,
)
from fserr_bpf_compare.faults.scratch import Scratch


def _cut_and_write(fs: Scratch) -> TriggerProcess:
    path = last_victim(fs)
    with cut(fs, path):
        return run_child(
            *("dd", "if=/dev/zero", f"bs={PAYLOAD}", "count=1", "conv=notrunc,fsync"),
            f"of={path}",
            path=path,
        )


def _lose_device(fs: Scratch) -> TriggerProcess:
    """Also the metadata cannot be written: the commit ends the file system."""
    path = str(fs.mount_point / "victim")
    fs.shrink_device(1 << 20)
    script = 'dd if=/dev/zero of="$0" bs=64k count=4 conv=fsync; sync -f "$0"'
    return run_child("sh", "-c", script, path, path=path)


BTRFS_DEVICE_GONE = Fault(
    name="btrfs_device_gone",
    fstype="btrfs",
    summary="writes data and metadata behind the end of a shrunken device",
    log=r"BTRFS.*\(device {dev}.*\).*(errs: wr [1-9]|forced readonly)",
    expected=(Expected(errno.EIO, "inode"),),
    native_since=None,
    damage=nothing,
    cause=_lose_device,
)
"""Of no scenario: it leaves nothing to look at."""

FAULTS = (
    Fault(
        name="ext4_writeback",
        fstype="ext4",
        summary="writes back data behind the end of a shrunken device",
        log=WRITEBACK_LOG["ext4"],
        expected=(Expected(errno.EIO, "inode"),),
        native_since=None,
        damage=write_victims,
        cause=_cut_and_write,
        mkfs_options=MKFS_OPTIONS["ext4"],
        handle_reachable=True,
    ),
    Fault(
        name="xfs_writeback",
        fstype="xfs",
        summary="writes back data behind the end of a shrunken device",
        log=WRITEBACK_LOG["xfs"],
        expected=(Expected(errno.EIO, "inode"),),
        native_since=(7, 0),
        damage=write_victims,
        cause=_cut_and_write,
        handle_reachable=True,
    ),
)
