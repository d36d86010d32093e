"""One emulated group of a client: its shadow, its marks for errors, its channel."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace

from fserr_bpf.closing import Closing
from fserr_bpf.codec.handles import HandleInode
from fserr_bpf.errorgroup import ErrorGroup
from fserr_bpf.marks import MarkedFilesystem
from fserr_bpf.model.group import NotificationQueue
from fserr_bpf.model.mark import MarkKind
from fserr_bpf.model.stream import Stream
from fserr_bpf.takeover.calls import MarkCall
from fserr_bpf.takeover.channel import Channel
from fserr_bpf.takeover.clientqueue import ClientQueue
from fserr_bpf.takeover.objects import Marked
from fserr_bpf.takeover.shadow import HOLD, Shadow
from fserr_bpf.uapi.fanotify import FAN_FS_ERROR, FAN_MARK_ADD
from fserr_bpf.visibility.rules import Part, number_of


class EmulatedGroup(Closing):
    """``pump_errors`` brings the records that wait to all groups.

    ``ends_seen``: a probe tells when a superblock goes; otherwise the shadow's marks do.
    ``silent``: marks for errors are accepted, as the kernel does, and never heard.
    """

    def __init__(
        self,
        number: int,
        shadow: Shadow,
        errors: ErrorGroup,
        queue: ClientQueue,
        pump_errors: Callable[[], None],
        *,
        knows: bool,
        ends_seen: bool,
        silent: bool,
    ) -> None:
        self.number = number
        self.shadow = shadow
        self.errors = errors
        self.channel: Channel | None = None
        self.queue: NotificationQueue = queue
        self._client_queue = queue
        self._pump_errors = pump_errors
        self._knows = knows
        self._ends_seen = ends_seen
        self._silent = silent
        # by s_dev: marks for errors as the client made them, heard or ignored at the moment
        self._marks: dict[int, MarkedFilesystem] = {}
        self._ignoring = False
        # by s_dev: inodes whose errors an ignore mask silences
        self._ignored: dict[int, dict[HandleInode, Part]] = {}

    # -- the feed of its channel -----------------------------------------------------

    def before_insert(self) -> None:
        """Reports may come: what the client has not read may merge with them."""
        if self.channel:
            self.channel.before_insert()

    def fed(self) -> None:
        """Reports may have come."""
        if self.channel:
            self.channel.fed()

    def pump(self) -> None:
        """Everything that the kernel has so far, errors first."""
        self._pump_errors()
        self.take_ordinary()

    def take_ordinary(self) -> None:
        """The ordinary events that wait in the shadow."""
        for event in self.shadow.read():
            self._client_queue.insert_from_kernel(event)

    # -- marks -----------------------------------------------------------------------

    def judge(self, call: MarkCall) -> None:
        """OSError if the kernel would refuse flags or mask, whatever they are about."""
        mask = call.mask
        emulated_inode = call.of_inode and self.errors.stream is Stream.PROPOSED
        if call.errors and (emulated_inode or not self._knows):
            mask = self._without_errors(call)
        self.shadow.judge(call.flags, mask)
        if call.errors and not (call.whole or emulated_inode):
            # fanotify_events_supported(): what the kernels before 5.16 do not know to say
            raise OSError(errno.EINVAL, "FAN_FS_ERROR is for file systems")

    def mark(self, call: MarkCall, dirfd: int, path: bytes | None) -> None:
        """Change the shadow's mark; OSError. May be called in a forked child."""
        self.shadow.mark(call.flags, self._without_errors(call), dirfd, path)

    def _without_errors(self, call: MarkCall) -> int:
        """The mask for the shadow."""
        if not call.errors or self._is_kernels(call):
            return call.mask
        return call.mask & ~FAN_FS_ERROR | (self.shadow.ignored_bit if call.ignores else HOLD)

    def _is_kernels(self, call: MarkCall) -> bool:
        """Whether the kernel takes FAN_FS_ERROR in such a mark itself."""
        return call.whole and self._knows

    def must_hold(self, call: MarkCall, dev: int, marked: Marked) -> bool:
        """Whether the shadow's mark may be gone, while the client's is still one for errors."""
        return (
            call.removes
            and not self._is_kernels(call)
            and self._hears(dev, marked, whole=call.whole)
        )

    def hold(self, call: MarkCall, dirfd: int, path: bytes | None) -> None:
        """Make the shadow's mark again, which goes when the last ordinary event goes."""
        self.shadow.mark(FAN_MARK_ADD | call.kind | call.lookup, HOLD, dirfd, path)

    def added(self, call: MarkCall, dev: int, marked: Marked) -> None:
        """The client has a mark for errors from now on; `refresh` follows."""
        now = time.monotonic_ns()
        if call.ignores:
            self._ignoring |= call.whole
            if call.of_inode and marked.inode:
                part = Part(MarkKind.INODE, "", number_of(marked.inode), now)
                self._ignored.setdefault(dev, {})[marked.inode] = part
            return
        known = self._marks.get(dev) or MarkedFilesystem(
            path="",
            dev=dev,
            fsid=marked.fsid,
            form=marked.form,
            fstype="",
            device="",
            mount_point="",
            since_ns=now,
            whole_ns=None,
        )
        if call.whole:
            since = now if known.whole_ns is None else known.whole_ns
            self._marks[dev] = replace(known, whole_ns=since)
        elif marked.inode:
            inodes = {marked.inode: now, **known.inodes}
            self._marks[dev] = replace(known, inodes=inodes)

    def removed(self, call: MarkCall, dev: int, marked: Marked) -> None:
        """The client wants no errors of this object any more; `hold`, `refresh` follow."""
        known = self._marks.get(dev)
        if call.ignores:
            if call.of_inode and marked.inode:
                self._ignored.get(dev, {}).pop(marked.inode, None)
        elif known:
            inodes = dict(known.inodes)
            if not call.whole and marked.inode:
                inodes.pop(marked.inode, None)
            self._keep(
                replace(known, whole_ns=None) if call.whole else replace(known, inodes=inodes)
            )

    def flushed(self, call: MarkCall) -> None:
        """The client has given up all marks of one type."""
        if call.of_inode:
            self._ignored.clear()
        for known in list(self._marks.values()):
            if call.whole:
                self._keep(replace(known, whole_ns=None))
            elif call.of_inode:
                self._keep(replace(known, inodes={}))
        self.refresh()

    def _hears(self, dev: int, marked: Marked, *, whole: bool) -> bool:
        """Whether the client's mark on this object is also one for errors."""
        known = self._marks.get(dev)
        if known is None:
            return False
        return known.whole_ns is not None if whole else marked.inode in known.inodes

    def devices(self) -> frozenset[int]:
        """s_dev of what is marked for errors, heard or ignored."""
        return frozenset(self._marks)

    @property
    def watches(self) -> bool:
        """Whether there is any mark for errors."""
        return bool(self._marks)

    def _keep(self, known: MarkedFilesystem) -> None:
        if known.whole_ns is None and not known.inodes:
            del self._marks[known.dev]
        else:
            self._marks[known.dev] = known

    def ended(self, dev: int) -> None:
        """The superblock has gone."""
        self._marks.pop(dev, None)
        self._ignored.pop(dev, None)

    def refresh(self) -> None:
        """What is heard now: marks that are alive and that no ignore mark silences.

        Ignore masks are the shadow's to keep: the kernel clears them when a file is modified.
        """
        alive = None
        if self._marks and (self._ignoring or not self._ends_seen):
            alive = self.shadow.superblocks()
            if not self._ends_seen:
                for dev in self._marks.keys() - alive.keys():
                    if not self._marks[dev].inodes:
                        del self._marks[dev]
        table = self.errors.marks
        for dev in table.devices() - self._marks.keys():
            table.remove(dev)
        for dev, known in self._marks.items():
            mark = alive.get(dev) if alive else None
            silenced = mark is not None and mark.ignored & self.shadow.ignored_bit
            if silenced or self._silent:
                table.remove(dev)
            else:
                ignored = tuple(self._ignored.get(dev, {}).values())
                table.put(replace(known, ignored=ignored))

    def close(self) -> None:
        """The client has closed its last descriptor, or is gone."""
        if self.channel:
            self.channel.close()
            self.channel = None
        self.shadow.close()
