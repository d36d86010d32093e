"""Which file systems are marked, found by the device that a record names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fserr_bpf.codec.handles import HandleInode, encode_handle, inode_of
from fserr_bpf.errors import FserrError, MarkError
from fserr_bpf.live.handles import check_markable, handle_of, identify
from fserr_bpf.live.mounts import MountTable, mounts_with, preferred_mounts, read_mounts
from fserr_bpf.model.event import FileHandle, Fsid
from fserr_bpf.model.mark import Mark
from fserr_bpf.uapi.record import Record

_NEVER = 1 << 64
FOLLOWED = ("ext4", "xfs", "btrfs", "f2fs")


@dataclass(frozen=True, slots=True)
class MarkedFilesystem:
    """A superblock with marks on it. ``dev`` is s_dev as the kernel stores it (20 minor bits).

    Times are CLOCK_MONOTONIC: reports from before a mark are not its own. ``since_ns`` is
    that of the first mark, ``whole_ns`` that of the mark on the file system, None without
    one, ``inodes`` has those of inode marks.
    """

    path: str
    dev: int
    fsid: Fsid
    form: int | None
    fstype: str
    device: str
    mount_point: str
    since_ns: int
    whole_ns: int | None
    inodes: Mapping[HandleInode, int] = field(default_factory=dict)

    def hears(self, time_ns: int, inode: HandleInode | None) -> bool:
        """Whether an error of ``inode``, None for the superblock, is for one of the marks."""
        if self.whole_ns is not None and time_ns >= self.whole_ns:
            return True
        return inode is not None and self.inodes.get(inode, _NEVER) <= time_ns

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
                check_markable(mark.path, whole=mark.whole)
                self._add(mark.path, whole=mark.whole)

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
        return max((t for m in self for t in (m.whole_ns or 0, *m.inodes.values())), default=0)

    def by_fsid(self, fsid: Fsid) -> MarkedFilesystem | None:
        """The first mark with this fsid (clones of an ext4 share one)."""
        return next((m for m in self._by_dev.values() if m.fsid == fsid), None)

    def put(self, marked: MarkedFilesystem) -> None:
        """Take over marks that somebody else has resolved, in place of those on the device."""
        self._by_dev[marked.dev] = marked

    def remove(self, dev: int) -> None:
        """Forget the marks on a device, if there are any."""
        self._by_dev.pop(dev, None)

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

    def _add(self, path: str, *, whole: bool = True) -> MarkedFilesystem:
        now = time.monotonic_ns()
        identity = identify(path)
        dev = _dev(identity.dev)
        earlier = self._by_dev.get(dev)
        inodes = dict(earlier.inodes) if earlier else {}
        if not whole:
            inodes[inode_at(path)] = now
        preferred = preferred_mounts(read_mounts()).get(identity.dev, identity.mount)
        marked = MarkedFilesystem(
            path=path,
            dev=dev,
            fsid=Fsid(*identity.fsid),
            form=identity.form,
            fstype=identity.fstype,
            device=os.path.basename(preferred.source) or "{}:{}".format(*identity.dev),
            mount_point=preferred.mount_point,
            since_ns=earlier.since_ns if earlier else now,
            whole_ns=now if whole else earlier.whole_ns if earlier else None,
            inodes=inodes,
        )
        self._by_dev[dev] = marked
        return marked


def inode_in(record: Record) -> HandleInode:
    """The inode of a record that has one, as its handle would say it."""
    return HandleInode(record.ino, record.generation, record.subvolume)


def inode_at(path: str) -> HandleInode:
    """What its handle says of ``path``; MarkError if handles of the file system are not known."""
    inode = inode_of(FileHandle(*handle_of(path)))
    if inode is None:
        raise MarkError(f"{path}: handles of this file system are not known", "mark all of it")
    return inode


def _dev(pair: tuple[int, int]) -> int:
    return pair[0] << 20 | pair[1]
