"""Data that cannot be written back, because the device ends in front of it."""

from __future__ import annotations

import errno

from compare.faults.cutting import (
    MKFS_OPTIONS,
    PAYLOAD,
    WRITEBACK_LOG,
    cut,
    last_victim,
    write_victims,
)
from compare.faults.fault import Caused, Expected, Fault, run_child
from compare.scratch import Scratch


def _cut_and_write(fs: Scratch) -> Caused:
    path = last_victim(fs)
    with cut(fs, path):
        return run_child(
            *("dd", "if=/dev/zero", f"bs={PAYLOAD}", "count=1", "conv=notrunc,fsync"),
            f"of={path}",
            path=path,
        )


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
