"""Block devices by their numbers: the names that the kernel has for them, and what is below.

Source: sysfs, ``Documentation/ABI/stable/sysfs-block``. Nothing here touches a disk.
"""

from __future__ import annotations

import os
import stat

from fserr_bpf.uapi.dev import Dev

EXT4_FOLDER = "/sys/fs/ext4"
_BY_NUMBER = "/sys/dev/block"
_COMPLETED = (0, 4, 11, 15)  # reads, writes, discards, flushes


def is_there(dev: Dev) -> bool:
    """Whether the kernel has a block device of this number: one that was removed is not there."""
    return os.path.exists(f"{_BY_NUMBER}/{dev}")


def completed(dev: Dev | None) -> int:
    """How many requests it has answered so far: ``Documentation/block/stat.rst``.

    0 where there are no numbers.
    """
    try:
        with open(f"{_BY_NUMBER}/{dev}/stat") as file:
            fields = [int(field) for field in file.read().split()]
    except OSError:
        return 0
    return sum(fields[at] for at in _COMPLETED if at < len(fields))


def kernel_name(dev: Dev) -> str:
    """Such as ``sda1`` or ``dm-3``; "" if it is not there."""
    try:
        folder = os.readlink(f"{_BY_NUMBER}/{dev}")
    except OSError:
        return ""
    return os.path.basename(folder).replace("!", "/")


def mapper_name(dev: Dev) -> str:
    """The name that device-mapper has for it, such as ``vg0-data``; "" for other devices."""
    try:
        path = f"{_BY_NUMBER}/{dev}/dm/name"
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""


def devices_below(dev: Dev) -> tuple[str, ...]:
    """Kernel names of all devices that it stands on: lower ones, and the disk of a partition."""
    found: dict[str, None] = {}
    _collect(os.path.realpath(f"{_BY_NUMBER}/{dev}"), found)
    return tuple(found)


def _collect(folder: str, found: dict[str, None]) -> None:
    lower = [os.path.dirname(folder)] if os.path.exists(f"{folder}/partition") else []
    try:
        slaves = sorted(os.listdir(f"{folder}/slaves"))
    except OSError:  # a partition has no such folder, a device that is gone neither
        slaves = []
    for each in (*lower, *(os.path.realpath(f"{folder}/slaves/{name}") for name in slaves)):
        name = os.path.basename(each).replace("!", "/")
        if name not in found:
            found[name] = None
            _collect(each, found)


def driver_of(fstype: str, dev: Dev) -> str:
    """Whose file system it is: ``ext4`` also for an ext2 or ext3 that this driver has mounted.

    It has a folder for each of its own, ``fs/ext4/sysfs.c``.
    """
    if fstype in ("ext2", "ext3") and os.path.isdir(f"{EXT4_FOLDER}/{sysfs_name(dev)}"):
        return "ext4"
    return fstype


def sysfs_name(dev: Dev) -> str:
    """Its name as a folder below /sys/fs, ``super_block.s_id``; "" if it is not there."""
    return kernel_name(dev).replace("/", "!")


def number_of(path: str) -> Dev | None:
    """The number of the block device ``path``, None if it is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISBLK(status.st_mode):
        return None
    return Dev(os.major(status.st_rdev), os.minor(status.st_rdev))
