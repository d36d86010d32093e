"""The mounted superblocks: one for each device number of the mount table."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import NamedTuple

from fserr_bpf.errors import MarkError
from fserr_bpf.kernel.blockdev import number_of
from fserr_bpf.kernel.mounts import Mount, MountTable, hidden_ids, mount_of, read_mounts
from fserr_bpf.uapi.dev import Dev

_ANONYMOUS = ("btrfs", "bcachefs")
_DEAD = (errno.EIO, errno.ESHUTDOWN)


class Superblock(NamedTuple):
    """A file system that is mounted.

    ``mounts`` are all of it in our namespace, ``visible`` one that its mount point leads to,
    or None. ``block`` is the number of its block device: a btrfs has a number of its own.
    """

    dev: Dev
    mounts: MountTable
    visible: Mount | None
    block: Dev | None

    @property
    def fstype(self) -> str:
        """The name of its type, as in mountinfo."""
        return self.mounts[0].fstype

    @property
    def options(self) -> frozenset[str]:
        """The options of the superblock."""
        return frozenset(self.mounts[0].super_options.split(","))

    @property
    def writable_mount(self) -> bool:
        """Whether a mount of it is meant to be written to."""
        return any("ro" not in mount.options.split(",") for mount in self.mounts)


def superblocks(table: Iterable[Mount]) -> tuple[Superblock, ...]:
    """All of ``table`` that are on block devices, in its order."""
    found = (superblock for superblock in _all(tuple(table)).values())
    return tuple(superblock for superblock in found if superblock.block is not None)


def superblock_at(path: str) -> Superblock:
    """The one that ``path`` is on, whatever its type.

    One that is dead refuses to look ``path`` up: then it is found by the folders above.
    Raises MarkError for a path that does not exist.
    """
    while True:
        try:
            mount = mount_of(path)
        except MarkError as error:
            cause = error.__cause__
            above = os.path.dirname(os.path.abspath(path))
            if not isinstance(cause, OSError) or cause.errno not in _DEAD or above == path:
                raise
            path = above
            continue
        known = _all((*read_mounts(), mount)).get(mount.dev)
        assert known is not None
        return known


def _all(table: MountTable) -> dict[Dev, Superblock]:
    hidden = hidden_ids(table)
    mounts: dict[Dev, dict[int, Mount]] = {}
    for mount in table:
        mounts.setdefault(mount.dev, {})[mount.mount_id] = mount
    return {dev: _one(dev, tuple(found.values()), hidden) for dev, found in mounts.items()}


def _one(dev: Dev, mounts: MountTable, hidden: frozenset[int]) -> Superblock:
    shown = [mount for mount in mounts if mount.mount_id not in hidden]
    # the root of the file system rather than a bind mount of a part of it
    shown.sort(key=lambda mount: mount.root != "/")
    block = dev if dev.major else _block_of(mounts[0])
    return Superblock(dev, mounts, shown[0] if shown else None, block)


def _block_of(mount: Mount) -> Dev | None:
    """Its number is no device's, but its source is one. That of others may be a path that hangs."""
    return number_of(mount.source) if mount.fstype in _ANONYMOUS else None
