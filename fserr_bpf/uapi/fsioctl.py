"""Requests of ioctl(2) that ask a file system how it is, with the layouts of their answers.

Sources: ``fs/xfs/libxfs/xfs_fs.h``, ``include/uapi/linux/btrfs.h`` and
``include/uapi/linux/fs.h``.
"""

from __future__ import annotations

from struct import Struct

_READ, _WRITE = 2, 1


def _request(direction: int, kind: int, number: int, size: int) -> int:
    """``_IOC()`` of include/uapi/asm-generic/ioctl.h."""
    return direction << 30 | size << 16 | kind << 8 | number


FS_IOC_GETVERSION = _request(_READ, ord("v"), 1, 8)

# struct xfs_fsop_geom, its version 5
XFS_GEOMETRY_SIZE = 256
XFS_IOC_FSGEOMETRY = _request(_READ, ord("X"), 126, XFS_GEOMETRY_SIZE)
XFS_SICK_AT = 112
XFS_SICK = {  # XFS_FSOP_GEOM_SICK_*
    1 << 0: "summary counters",
    1 << 1: "user quota",
    1 << 2: "group quota",
    1 << 3: "project quota",
    1 << 4: "realtime bitmap",
    1 << 5: "realtime summary",
    1 << 6: "quota counts",
    1 << 7: "link counts",
    1 << 8: "metadata directory",
    1 << 9: "metadata directory paths",
}

_BTRFS = 0x94
# struct btrfs_ioctl_fs_info_args: max_id, num_devices
BTRFS_FS_INFO_SIZE = 1024
BTRFS_IOC_FS_INFO = _request(_READ, _BTRFS, 31, BTRFS_FS_INFO_SIZE)
BTRFS_FS_INFO = Struct("<QQ")
# struct btrfs_ioctl_dev_info_args: devid first, path last
BTRFS_DEV_INFO_SIZE = 4096
BTRFS_IOC_DEV_INFO = _request(_READ | _WRITE, _BTRFS, 30, BTRFS_DEV_INFO_SIZE)
BTRFS_DEV_INFO_PATH_AT = 3072
# struct btrfs_ioctl_get_dev_stats: devid, nr_items, flags, values
BTRFS_DEV_STATS_SIZE = 1032
BTRFS_IOC_GET_DEV_STATS = _request(_READ | _WRITE, _BTRFS, 52, BTRFS_DEV_STATS_SIZE)
BTRFS_DEV_STATS = Struct("<QQQ5Q")
BTRFS_DEV_STAT_VALUES = 5
