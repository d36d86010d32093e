"""Which file systems are marked, found by the device that a record names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fserr_bpf.codec.handles import encode_handle
from fserr_bpf.errors import FserrError
from fserr_bpf.live.handles import check_markable, identify
from fserr_bpf.live.mounts import MountTable, mounts_with, preferred_mounts, read_mounts
from fserr_bpf.model.event import FileHandle, Fsid
from fserr_bpf.model.mark import Mark
from fserr_bpf.uapi.record import Record

FOLLOWED = ("ext4", "xfs", "btrfs", "f2fs")


@dataclass(frozen=True, slots=True)
class MarkedFilesystem:
    """A marked superblock. ``dev`` is s_dev as the kernel stores it (20 minor bits).

    ``since_ns`` is CLOCK_MONOTONIC: reports from before the mark are not its own.
    """

    path: str
    dev: int
    fsid: Fsid
    form: int | None
    fstype: str
    device: str
    mount_point: str
    since_ns: int

    def handle(self, record: Record) -> FileHandle | None:
        """The handle of the record's inode, as exportfs would encode it."""
        return encode_handle(self.form, record.ino, record.generation, record.subvolume)


class MarkTable:
    """The marks of one group, by device.

    With ``marks`` None the group follows every mounted file system of the types in
    ``FOLLOWED``, also those that are mounted later. Raises MarkError for a path
    that cannot be marked.
    """

    def __init__(self, marks: Iterable[Mark] | None) -> None:
        self.follows = marks is None
        self._by_dev: dict[int, MarkedFilesystem] = {}
        self.skipped: dict[str, str] = {}  # followed mount points that cannot be marked
        if marks is None:
            self.follow(read_mounts())
        else:
            for mark in marks:
                check_markable(mark.path)
                self._add(mark.path)

    def __iter__(self) -> Iterator[MarkedFilesystem]:
        return iter(self._by_dev.values())

    def __len__(self) -> int:
        return len(self._by_dev)

    def get(self, dev: int) -> MarkedFilesystem | None:
        """The mark on the superblock of a device number from a record."""
        return self._by_dev.get(dev)

    def devices(self) -> frozenset[int]:
        """s_dev of every marked superblock."""
        return frozenset(self._by_dev)

    @property
    def newest_ns(self) -> int:
        """Since when the newest mark has been there (CLOCK_MONOTONIC), 0 without marks."""
        return max((m.since_ns for m in self), default=0)

    def by_fsid(self, fsid: Fsid) -> MarkedFilesystem | None:
        """The first mark with this fsid (clones of an ext4 share one)."""
        return next((m for m in self._by_dev.values() if m.fsid == fsid), None)

    def end(self, dev: int, time_ns: int) -> MarkedFilesystem | None:
        """A superblock was gone at ``time_ns``; returns the mark that went with it.

        The device may carry another file system by now, marked since.
        """
        marked = self._by_dev.get(dev)
        if marked and marked.since_ns <= time_ns:
            return self._by_dev.pop(dev)
        return None

    def end_unmounted(self, table: MountTable) -> list[MarkedFilesystem]:
        """End the marks whose device is mounted nowhere; for kernels without kprobes."""
        mounted = {_dev(mount.dev) for mount in table}
        return [self._by_dev.pop(dev) for dev in list(self._by_dev) if dev not in mounted]

    def follow(self, table: MountTable) -> list[MarkedFilesystem]:
        """Mark what is mounted and not yet marked; returns the new marks."""
        new = []
        for mount in mounts_with(FOLLOWED, preferred_mounts(table).values()):
            if _dev(mount.dev) in self._by_dev:
                continue
            try:
                new.append(self._add(mount.mount_point))
                self.skipped.pop(mount.mount_point, None)
            except FserrError as error:  # one bad mount must not end the others
                self.skipped[mount.mount_point] = str(error)
        return new

    def _add(self, path: str) -> MarkedFilesystem:
        since = time.monotonic_ns()
        identity = identify(path)
        dev = _dev(identity.dev)
        preferred = preferred_mounts(read_mounts()).get(identity.dev, identity.mount)
        marked = MarkedFilesystem(
            path=path,
            dev=dev,
            fsid=Fsid(*identity.fsid),
            form=identity.form,
            fstype=identity.fstype,
            device=os.path.basename(preferred.source) or "{}:{}".format(*identity.dev),
            mount_point=preferred.mount_point,
            since_ns=since,
        )
        self._by_dev[dev] = marked
        return marked


def _dev(pair: tuple[int, int]) -> int:
    return pair[0] << 20 | pair[1]
