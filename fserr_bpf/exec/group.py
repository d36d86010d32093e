"""One emulated group of a client: its shadow, its marks for errors, its channel."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from fserr_bpf.closing import Closing
from fserr_bpf.exec.channel import Channel
from fserr_bpf.exec.clientqueue import ClientQueue
from fserr_bpf.exec.fanotifycalls import MarkCall
from fserr_bpf.exec.markrequest import MarkedObject
from fserr_bpf.exec.shadow import Shadow
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.marks.rules import Part
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.mark import MarkKind
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.inode import InodeId


class EmulatedGroup(Closing):
    """``pump_errors`` brings the records that wait to all groups.

    Raises OSError as ``make_channel`` does, and leaves the shadow to the caller then.
    ``ends_seen``: a probe reports the end of a superblock; otherwise the shadow's marks show it.
    ``without_errors``: marks for errors are accepted, as the kernel does, without effect.
    """

    def __init__(
        self,
        shadow: Shadow,
        errors: ErrorGroup,
        queue: ClientQueue,
        *,
        pump_errors: Callable[[], None],
        make_channel: Callable[[EmulatedGroup], Channel],
        ends_seen: bool,
        without_errors: bool,
    ) -> None:
        self.number = 0
        """In the order in which clients got them; 0 until one has."""
        self.shadow = shadow
        self.errors = errors
        self.queue: NotificationQueue = queue
        self._client_queue = queue
        self._pump_errors = pump_errors
        self._ends_seen = ends_seen
        self._without_errors = without_errors
        self.marks: dict[Dev, MarkedFilesystem] = {}
        """By s_dev: those for errors as the client made them, also those that are ignored."""
        self._ignoring = False
        # by s_dev: inodes whose errors an ignore mask drops
        self._ignored: dict[Dev, dict[InodeId, Part]] = {}
        self.channel = make_channel(self)
        queue.before_insert = self.channel.before_insert

    # -- the feed of its channel -----------------------------------------------------

    def pump(self) -> None:
        """Everything that the kernel has so far, errors first."""
        self._pump_errors()
        self.take_ordinary()

    def take_ordinary(self) -> None:
        """The ordinary events that wait in the shadow."""
        for event in self.shadow.read():
            self._client_queue.insert_from_kernel(event)

    # -- marks -----------------------------------------------------------------------

    def remember(self, call: MarkCall, marked: MarkedObject) -> bool:
        """The shadow's mark was changed as the client asked for: so are its marks for errors.

        True if the shadow's mark may be gone with that, while the client's is still one for
        errors: then `Shadow.hold` it, and `refresh`.
        """
        if call.errors and call.removes:
            self._removed(call, marked)
        elif call.errors:
            self._added(call, marked)
        if call.removes and not self.shadow.takes_errors(call) and self._marks_errors(call, marked):
            return True
        self.refresh()
        return False

    def _added(self, call: MarkCall, marked: MarkedObject) -> None:
        now, dev = time.monotonic_ns(), marked.dev
        if call.ignores:
            self._ignoring |= call.whole
            if call.of_inode and marked.inode:
                part = Part(MarkKind.INODE, "", marked.inode.narrow, now)
                self._ignored.setdefault(dev, {})[marked.inode] = part
            return
        known = self.marks.get(dev) or MarkedFilesystem(
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
            self.marks[dev] = replace(known, whole_ns=since)
        elif marked.inode:
            inodes = {marked.inode: now, **known.inodes}
            self.marks[dev] = replace(known, inodes=inodes)

    def _removed(self, call: MarkCall, marked: MarkedObject) -> None:
        known = self.marks.get(marked.dev)
        if call.ignores:
            if call.of_inode and marked.inode:
                self._ignored.get(marked.dev, {}).pop(marked.inode, None)
        elif known and call.whole:
            self._keep(replace(known, whole_ns=None))
        elif known:
            inodes = dict(known.inodes)
            if marked.inode:
                inodes.pop(marked.inode, None)
            self._keep(replace(known, inodes=inodes))

    def flushed(self, call: MarkCall) -> None:
        """The client has given up all marks of one type."""
        if call.of_inode:
            self._ignored.clear()
        for known in list(self.marks.values()):
            if call.whole:
                self._keep(replace(known, whole_ns=None))
            elif call.of_inode:
                self._keep(replace(known, inodes={}))
        self.refresh()

    def _marks_errors(self, call: MarkCall, marked: MarkedObject) -> bool:
        """Whether the client's mark on this object is one for errors."""
        known = self.marks.get(marked.dev)
        if known is None:
            return False
        return known.whole_ns is not None if call.whole else marked.inode in known.inodes

    def _keep(self, known: MarkedFilesystem) -> None:
        if known.whole_ns is None and not known.inodes:
            del self.marks[known.dev]
        else:
            self.marks[known.dev] = known

    def ended(self, dev: Dev) -> None:
        """The superblock is gone."""
        self.marks.pop(dev, None)
        self._ignored.pop(dev, None)

    def refresh(self) -> None:
        """Give the marks to the error group that are alive and not ignored.

        Ignore masks are the shadow's to keep: the kernel clears them when a file is modified.
        """
        alive = None
        if self.marks and (self._ignoring or not self._ends_seen):
            alive = self.shadow.superblocks()
            if not self._ends_seen:
                for dev in self.marks.keys() - alive.keys():
                    if not self.marks[dev].inodes:
                        del self.marks[dev]
        effective = []
        for dev, known in self.marks.items():
            mark = alive.get(dev) if alive else None
            dropped = mark is not None and mark.ignored & self.shadow.ignored_bit
            if not (dropped or self._without_errors):
                ignored = tuple(self._ignored.get(dev, {}).values())
                effective.append(replace(known, ignored=ignored))
        self.errors.marks.set(effective)

    def close(self) -> None:
        """The client has closed its last descriptor, or has ended."""
        self.channel.close()
        self.shadow.close()
