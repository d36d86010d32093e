"""What reaches the groups: the entries of the ring and, without kprobes, the kernel's events.

One reader for one ring: every entry is decoded once and shown to each group, in the order of the
ring.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from fserr_bpf.closing import Closing
from fserr_bpf.codec.entry import decode_entry
from fserr_bpf.codec.record import runs, time_of
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.kernelgroup import TRACES_KEPT, KernelGroup
from fserr_bpf.group.observed import Observed
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.probes.table import EXT4_EMITTERS
from fserr_bpf.uapi.record import Probe

_PUMP_ROUNDS = 8  # a pump takes a full ring at most: a flood must not starve the readers

Ended = list[tuple[ErrorGroup, MarkedFilesystem]]


class Source(Closing):
    """Brings what the probes have pushed to groups.

    ``wanted`` are the probes of the groups' streams. ``thread``: the kernel's own events
    carry the thread's number.
    """

    def __init__(
        self, attached: AttachedProbes, wanted: Collection[Probe], *, thread: bool = False
    ) -> None:
        self.attached = attached
        self.kernel_group: KernelGroup | None = None
        every = Probe.FSERROR in wanted
        if attached.kernel.kprobes or not (every or EXT4_EMITTERS & set(wanted)):
            return
        if kernel_accepts_fs_error():
            self.kernel_group = KernelGroup(every=every, thread=thread)

    def filenos(self) -> tuple[int, ...]:
        """Descriptors that are readable while there is something to bring."""
        ring = self.attached.ring.fileno()
        return (ring, self.kernel_group.fileno()) if self.kernel_group else (ring,)

    def pump(self, groups: Collection[ErrorGroup]) -> Ended:
        """Move everything that waits into the queues; returns the marks that ended."""
        realtime_offset_ns = time.time_ns() - time.monotonic_ns()
        # the kernel's events first: then the trace of each is in the ring already
        kernel_events = list(self.kernel_group.read()) if self.kernel_group else []
        ended: Ended = []
        for _ in range(_PUMP_ROUNDS):
            entries = self.attached.ring.drain()
            if not entries:
                break
            # a run has one time for all, so it must not reach over the start of a mark
            newest = max((group.marks.newest_ns for group in groups), default=0)
            whole = time_of(entries[0]) >= newest
            for run in runs(entries) if whole else ([entry] for entry in entries):
                ended += self._take(run, groups, realtime_offset_ns)
        if self.kernel_group:
            for event in kernel_events:
                observed = _join(self.kernel_group, event, groups, realtime_offset_ns)
                for group in groups:
                    group.insert(observed)
            self.kernel_group.forget(time.monotonic_ns())
        lost = self.attached.ring.lost()
        for group in groups:
            group.note_losses(lost)
        return ended

    def _take(
        self, run: list[bytes], groups: Iterable[ErrorGroup], realtime_offset_ns: int
    ) -> Ended:
        """One run of entries that are alike but for their time."""
        entry = decode_entry(run[0])
        time_ns = entry.record.time_ns
        if entry.record.probe == Probe.SB_DELETE:
            ends = ((group, group.marks.end(entry.dev, time_ns)) for group in groups)
            return [(group, marked) for group, marked in ends if marked]
        if entry.record.probe == Probe.EXT4_TRACE:
            if self.kernel_group:
                for data in run[-TRACES_KEPT:]:
                    record = entry.record._replace(time_ns=time_of(data))
                    self.kernel_group.add_trace(entry._replace(record=record))
            return []
        observed = Observed(entry, len(run), time_ns, realtime_offset_ns)
        for group in groups:
            group.insert(observed)
        return []

    def close(self) -> None:
        """Close the kernel's group; the probes are their owner's."""
        if self.kernel_group:
            self.kernel_group.close()
            self.kernel_group = None


def _join(
    kernel_group: KernelGroup,
    event: FsErrorEvent,
    groups: Iterable[ErrorGroup],
    realtime_offset_ns: int,
) -> Observed:
    """An event of the kernel's group with its trace."""
    marked = next(filter(None, (g.marks.by_fsid(event.fsid) for g in groups)), None)
    trace = kernel_group.take_trace(marked.dev, event) if marked else None
    return Observed(trace, event.error_count, time.monotonic_ns(), realtime_offset_ns, event)
