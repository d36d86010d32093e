"""Where the records of all groups come from: the ring and, without kprobes, the kernel's group.

One reader for one ring: every record is shown to each group, in the order of the ring.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from fserr_bpf.closing import Closing
from fserr_bpf.codec.record import runs
from fserr_bpf.codec.side import record_in
from fserr_bpf.errorgroup import ErrorGroup
from fserr_bpf.kernelgroup import TRACES_KEPT, KernelGroup
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.fanotify import kernel_accepts_fs_error
from fserr_bpf.live.probes import EXT4_EMITTERS
from fserr_bpf.marks import MarkedFilesystem
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.uapi.record import Probe

_PUMP_ROUNDS = 8  # a pump takes a full ring at most: a flood must not starve the readers

Ended = list[tuple[ErrorGroup, MarkedFilesystem]]


class Source(Closing):
    """Brings what the probes have pushed to groups.

    ``wanted`` are the probes of the groups' streams. ``thread``: the kernel's own events
    carry the thread's number.
    """

    def __init__(self, armed: Armed, wanted: Collection[Probe], *, thread: bool = False) -> None:
        self.armed = armed
        self.kernel_group: KernelGroup | None = None
        every = Probe.FSERROR in wanted
        if armed.kernel.kprobes or not (every or EXT4_EMITTERS & set(wanted)):
            return
        if kernel_accepts_fs_error():
            self.kernel_group = KernelGroup(every=every, thread=thread)

    def filenos(self) -> tuple[int, ...]:
        """Descriptors that are readable while there is something to bring."""
        ring = self.armed.ring.fileno()
        return (ring, self.kernel_group.fileno()) if self.kernel_group else (ring,)

    def pump(self, groups: Collection[ErrorGroup]) -> Ended:
        """Move everything that waits into the queues; returns the marks that ended."""
        wall = time.time_ns() - time.monotonic_ns()
        # the kernel's events first: then the trace of each is in the ring already
        kernel_events = list(self.kernel_group.read()) if self.kernel_group else []
        newest = max((group.marks.newest_ns for group in groups), default=0)
        ended: Ended = []
        for _ in range(_PUMP_ROUNDS):
            entries = self.armed.ring.drain()
            if not entries:
                break
            # a run has one time for all, so it must not reach over the start of a mark
            whole = record_in(entries[0]).time_ns >= newest
            for same in runs(entries) if whole else ([entry] for entry in entries):
                ended += self._take(same, groups, wall)
        if self.kernel_group:
            for event in kernel_events:
                self._take_kernel_event(self.kernel_group, event, groups, wall)
            self.kernel_group.forget(time.monotonic_ns())
        lost = self.armed.ring.lost()
        for group in groups:
            group.note_losses(lost)
        return ended

    def _take(self, same: list[bytes], groups: Iterable[ErrorGroup], wall: int) -> Ended:
        record = record_in(same[0])
        if record.probe == Probe.SB_DELETE:
            ends = ((group, group.marks.end(record.dev, record.time_ns)) for group in groups)
            return [(group, marked) for group, marked in ends if marked]
        if record.probe == Probe.EXT4_TRACE:
            if self.kernel_group:
                for entry in same[-TRACES_KEPT:]:
                    self.kernel_group.add_trace(entry)
            return []
        for group in groups:
            group.insert(same, wall)
        return []

    def _take_kernel_event(
        self,
        kernel_group: KernelGroup,
        event: FsErrorEvent,
        groups: Collection[ErrorGroup],
        wall: int,
    ) -> None:
        marked = next(filter(None, (g.marks.by_fsid(event.fsid) for g in groups)), None)
        entry = kernel_group.take_trace(marked.dev, event) if marked else None
        for group in groups:
            group.insert_kernel_event(event, entry, wall)

    def close(self) -> None:
        """Close the kernel's group; the probes are their owner's."""
        if self.kernel_group:
            self.kernel_group.close()
            self.kernel_group = None
