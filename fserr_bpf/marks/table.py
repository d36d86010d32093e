"""Which file systems are marked, found by the device that a record names."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fserr_bpf.errors import FserrError, MarkError
from fserr_bpf.kernel.blockdev import driver_of
from fserr_bpf.kernel.handles import FilesystemIdentity, identify
from fserr_bpf.kernel.mounts import (
    Mount,
    MountTable,
    preferred_mounts,
    process_of,
    read_mounts,
    read_mounts_of,
)
from fserr_bpf.marks.followed import followed_mounts
from fserr_bpf.marks.resolve import Resolved, resolve
from fserr_bpf.marks.rules import (
    Answer,
    MountId,
    Part,
    Place,
    Verdict,
    any_hears,
    verdict,
)
from fserr_bpf.model.event import Fsid
from fserr_bpf.model.mark import Mark, MarkKind, SuperblockErrors
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.inode import InodeId

_NEVER = 1 << 64
_TAKES_NO_MARK = (errno.EOPNOTSUPP, errno.ENODEV)  # without file handles, or without fsid


@dataclass(frozen=True, slots=True)
class MarkedFilesystem:
    """A superblock with marks on it.

    Times are CLOCK_MONOTONIC: reports from before a mark are not its own. ``since_ns`` is
    that of the first mark, ``whole_ns`` that of the mark on the file system, None without
    one, ``inodes`` has those of inode marks. ``parts`` are mount and subtree marks,
    ``ignored`` what ignore marks hear. ``superblock``: who hears errors without an inode.
    """

    path: str
    dev: Dev
    fsid: Fsid
    form: int | None
    fstype: str
    device: str
    mount_point: str
    since_ns: int
    whole_ns: int | None
    inodes: Mapping[InodeId, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    ignored: tuple[Part, ...] = ()
    superblock: SuperblockErrors = SuperblockErrors.FILESYSTEM

    @property
    def driver(self) -> str:
        """Whose file system it is: ext4 mounts ext2 and ext3 too."""
        return driver_of(self.fstype, self.dev)

    @property
    def partial(self) -> bool:
        """Whether it matters where an inode is."""
        return bool(self.parts or self.ignored)

    @property
    def elsewhere(self) -> bool:
        """Whether a mark ends with a mount of another process's table."""
        parts = (*self.parts, *self.ignored)
        return any(part.mount and part.mount.process for part in parts)

    @property
    def newest_ns(self) -> int:
        """When the last of its marks was made."""
        parts = (part.since_ns for part in (*self.parts, *self.ignored))
        return max(self.since_ns, self.whole_ns or 0, *self.inodes.values(), *parts)

    def hears(self, time_ns: int, inode: InodeId | None) -> bool:
        """Whether an error of ``inode``, None for the superblock, is for one of the marks."""
        if self.whole_ns is not None and time_ns >= self.whole_ns:
            return True
        if inode is None and self.superblock is SuperblockErrors.ALL:
            return True
        return inode is not None and self.inodes.get(inode, _NEVER) <= time_ns

    def verdict(
        self,
        time_ns: int,
        inode: InodeId | None,
        place: Place | None,
        *,
        final: bool = False,
    ) -> Verdict:
        """What becomes of an error of ``inode``, None for the superblock, that is at ``place``.

        ``final``: more will not be known of the place.
        """
        heard = Answer.YES if self.hears(time_ns, inode) else Answer.NO
        ignored = Answer.NO
        if self.partial:
            number = inode.narrow if inode else None
            if heard is Answer.NO:
                heard = any_hears(self.parts, time_ns, number, place)
            ignored = any_hears(self.ignored, time_ns, number, place)
        return verdict(heard, ignored, final=final)


class MarkTable:
    """The marks of one group, by device.

    With ``marks`` None the group follows every file system of `followed_mounts`, also those that
    are mounted later; ``table`` is what is mounted now. What marks in ``ignore`` would hear is
    not for the group. Raises MarkError for a path that cannot be
    marked.
    """

    def __init__(
        self,
        marks: Iterable[Mark] | None,
        ignore: Iterable[Mark] = (),
        superblock: SuperblockErrors = SuperblockErrors.FILESYSTEM,
        table: MountTable | None = None,
    ) -> None:
        self.follows = marks is None
        self._superblock = superblock
        self._by_dev: dict[Dev, MarkedFilesystem] = {}
        self._ignored: dict[Dev, tuple[Part, ...]] = {}
        self.notes: list[str] = []  # what marks will not hear, in words
        self.skipped: dict[Dev, str] = {}  # what is followed and cannot be marked, in words
        for mark in ignore:
            self._ignore(mark)
        if marks is None:
            self.follow(read_mounts() if table is None else table)
        else:
            self._mark(marks)
        self.partial = any(marked.partial for marked in self) or bool(self._ignored)

    def __iter__(self) -> Iterator[MarkedFilesystem]:
        return iter(self._by_dev.values())

    def __len__(self) -> int:
        return len(self._by_dev)

    def get(self, dev: Dev) -> MarkedFilesystem | None:
        """The marks on a superblock."""
        return self._by_dev.get(dev)

    def devices(self) -> frozenset[Dev]:
        """s_dev of every marked superblock."""
        return frozenset(self._by_dev)

    @property
    def newest_ns(self) -> int:
        """Since when the newest mark has been there (CLOCK_MONOTONIC), 0 without marks."""
        return max((marked.newest_ns for marked in self), default=0)

    def by_fsid(self, fsid: Fsid) -> MarkedFilesystem | None:
        """The first mark with this fsid (clones of an ext4 share one)."""
        return next((m for m in self._by_dev.values() if m.fsid == fsid), None)

    def set(self, resolved: Iterable[MarkedFilesystem]) -> None:
        """These are all marks from now on; somebody else has resolved them."""
        self._by_dev = {marked.dev: marked for marked in resolved}

    def end(self, dev: Dev, time_ns: int) -> MarkedFilesystem | None:
        """A superblock was gone at ``time_ns``; returns the mark that went with it.

        The device may carry another file system by now, marked since.
        """
        marked = self._by_dev.get(dev)
        if marked and marked.since_ns <= time_ns:
            self._ignored.pop(dev, None)
            return self._by_dev.pop(dev)
        return None

    def end_unmounted(self, table: MountTable) -> list[MarkedFilesystem]:
        """End the marks whose device is mounted nowhere; for kernels without kprobes."""
        mounted = {mount.dev for mount in table}
        for process in {process_of(marked.mount_point) for marked in self} - {0}:
            mounted |= {mount.dev for mount in read_mounts_of(process)}
        gone = [dev for dev in self._by_dev if dev not in mounted]
        for dev in gone:
            self._ignored.pop(dev, None)
        return [self._by_dev.pop(dev) for dev in gone]

    def end_mounts(self, table: MountTable | None = None) -> list[Part]:
        """End the mount marks whose mount is not there any more.

        ``table`` is our own; without it only mounts of other processes are looked for.
        Raises PermissionError as ``read_mounts_of()``.
        """
        ended: list[Part] = []
        for marked in list(self):
            over = {
                part
                for part in (*marked.parts, *marked.ignored)
                if part.mount and not _is_there(part.mount, table)
            }
            if not over:
                continue
            ended += sorted(over, key=lambda part: part.path)
            left = replace(
                marked,
                parts=tuple(part for part in marked.parts if part not in over),
                ignored=tuple(part for part in marked.ignored if part not in over),
            )
            self._by_dev[marked.dev] = left
            self._ignored[marked.dev] = left.ignored
            if left.whole_ns is None and not left.inodes and not left.parts:
                self._by_dev.pop(marked.dev, None)
        return ended

    def follow(self, table: MountTable) -> list[MarkedFilesystem]:
        """Mark what is mounted and not yet marked; returns the new marks."""
        new = []
        mounts = followed_mounts(table)
        for dev in self.skipped.keys() - {mount.dev for mount in mounts}:
            del self.skipped[dev]
        points = {(mount.dev, mount.mount_point) for mount in table}
        for mount in mounts:
            if known := self._by_dev.get(mount.dev):
                # moved, or the process has gone through whose root it was seen
                if (known.dev, known.mount_point) not in points:
                    self._by_dev[known.dev] = replace(known, mount_point=mount.mount_point)
                continue
            try:
                new.append(self._add(Resolved(mount.mount_point, _markable(mount), None)))
                self.skipped.pop(mount.dev, None)
            except FserrError as error:  # one bad mount must not end the others
                self.skipped[mount.dev] = str(error)
        return new

    def _mark(self, marks: Iterable[Mark]) -> None:
        refused: list[MarkError] = []
        for mark in marks:
            try:
                for resolved in tuple(resolve(mark, time.monotonic_ns())):
                    self._add(resolved)
            except MarkError as error:  # one file system that takes no mark must not end the others
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in _TAKES_NO_MARK:
                    raise
                refused.append(error)
        if refused and not self._by_dev:
            raise refused[0]
        self.notes += [f"not watching {error}" for error in refused]

    def _add(self, resolved: Resolved) -> MarkedFilesystem:
        now = time.monotonic_ns()
        path, identity, part, note = resolved
        self.notes += [note] if note else []
        dev = identity.dev
        earlier = self._by_dev.get(dev)
        inodes, parts = (dict(earlier.inodes), earlier.parts) if earlier else ({}, ())
        if part and part.kind is MarkKind.INODE:
            inodes[part.root] = now
        elif part:
            parts = (*parts, part)
        preferred = preferred_mounts(read_mounts()).get(identity.dev, identity.mount)
        marked = MarkedFilesystem(
            path=path,
            dev=dev,
            # a subvolume of btrfs has its own
            fsid=earlier.fsid if earlier and part else Fsid(*identity.fsid),
            form=identity.form,
            fstype=identity.fstype,
            device=os.path.basename(preferred.source) or str(identity.dev),
            mount_point=preferred.mount_point,
            since_ns=earlier.since_ns if earlier else now,
            whole_ns=now if not part else earlier.whole_ns if earlier else None,
            inodes=inodes,
            parts=parts,
            ignored=self._ignored.get(dev, ()),
            superblock=self._superblock,
        )
        self._by_dev[dev] = marked
        return marked

    def _ignore(self, mark: Mark) -> None:
        now = time.monotonic_ns()
        for path, identity, part, _ in resolve(mark, now):
            whole = Part(MarkKind.FILESYSTEM, path, InodeId(0, 0), now, everything=True)
            dev = identity.dev
            self._ignored[dev] = (*self._ignored.get(dev, ()), part or whole)

    @property
    def processes(self) -> frozenset[int]:
        """Processes by whose mount tables marks are known, our own apart."""
        parts = [part for marked in self for part in (*marked.parts, *marked.ignored)]
        return frozenset(
            {process_of(marked.mount_point) for marked in self}
            | {part.mount.process for part in parts if part.mount}
        ) - {0}


def _markable(mount: Mount) -> FilesystemIdentity:
    """What ``mount`` is of. Raises MarkError if its mount point leads elsewhere, or as the kernel.

    The kernel is not asked: the right to mark may have been given up.
    """
    identity = identify(mount.mount_point)
    what = f"{mount.mount_point} ({mount.fstype} on {os.path.basename(mount.source)})"
    if identity.dev != mount.dev:
        raise MarkError(f"{what}: another mount hides it", "mount it at a second place too")
    if identity.fsid == (0, 0):  # fanotify_test_fsid() in fs/notify/fanotify/fanotify_user.c
        raise MarkError(
            f"{what}: the file system has no fsid", "give it a UUID, as tune2fs -U random does"
        )
    return identity


def gone(part: Part) -> str:
    """In words, that a mount mark has ended."""
    return f"no longer watching the mount of {part.path}: unmounted"


def _is_there(mount: MountId, table: MountTable | None) -> bool:
    if not mount.process and table is None:
        return True
    found = read_mounts_of(mount.process) if mount.process else table or ()
    return any((m.mount_id, m.dev) == (mount.number, mount.dev) for m in found)
