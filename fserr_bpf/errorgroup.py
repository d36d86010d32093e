"""One group: its marks, the rules of its stream, its queue. Records in, events out.

Nothing here waits or owns a descriptor of the probes: ``source.py`` brings the records.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fserr_bpf import details
from fserr_bpf.codec import reader
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.codec.handles import HandleInode, inode_of
from fserr_bpf.codec.side import place_in, record_in, side_in
from fserr_bpf.kernelgroup import SOURCE
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.fanotify import max_queued_events
from fserr_bpf.live.kallsyms import shows_addresses
from fserr_bpf.live.pidfd import open_pidfd
from fserr_bpf.live.probes import wanted
from fserr_bpf.marks import MarkedFilesystem, MarkTable, gone, inode_in
from fserr_bpf.model.event import Event, FileHandle, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.group import KERNEL_LIMIT, NotificationQueue
from fserr_bpf.model.stream import Stream
from fserr_bpf.names.lookup import Names
from fserr_bpf.origin import origin_of, place, says_bad_inode, side_of
from fserr_bpf.statistics import Statistics
from fserr_bpf.streams import RULES, Report
from fserr_bpf.uapi.record import Flag, Probe, Record
from fserr_bpf.uapi.side import PlaceRecord
from fserr_bpf.visibility.asking import Places
from fserr_bpf.visibility.cgroups import CgroupFilter
from fserr_bpf.visibility.holding import Held, Holding
from fserr_bpf.visibility.rules import Answer, Place, Verdict, place_of

_NO_TASK = int(Flag.NO_TASK)


class _Case(NamedTuple):
    """Errors of one inode, None for the superblock, for the marks to judge.

    ``where`` is what the probe saw of its place; ``handle`` is None if nobody may look.
    """

    marked: MarkedFilesystem
    time_ns: int
    inode: HandleInode | None
    where: Place | None
    handle: FileHandle | None
    errors: int


class ErrorGroup:
    """A FAN_FS_ERROR group over probes that are attached.

    ``max_events`` is the length of the queue, None for no limit, KERNEL_LIMIT for what the
    kernel gives its own groups. ``names`` stands for details: events have an
    ``origin.side``. ``places`` is asked for what the probes do not know of marks on parts
    of a file system; ``cgroup`` lets its errors through only. Only the stream
    proposed has details.
    """

    def __init__(
        self,
        stream: Stream,
        flags: GroupFlags,
        marks: MarkTable,
        armed: Armed,
        *,
        max_events: int | None = KERNEL_LIMIT,
        names: Names | None = None,
        places: Places | None = None,
        cgroup: CgroupFilter | None = None,
    ) -> None:
        self.stream = stream
        self.flags = flags
        self.marks = marks
        self.names = names
        self.places = places
        self.news: list[str] = []
        self._cgroup = cgroup
        self._holding = Holding()
        self.wanted = wanted(stream, armed.kernel)
        self._sources = {a.probe: a.source for a in reversed(armed.attached)}
        self._rules = {p: r for p, r in RULES[stream].items() if p in self.wanted}
        if max_events == KERNEL_LIMIT:
            max_events = max_queued_events()
        self.queue = NotificationQueue(max_events, self._overflow)
        self._counts = Counter[str]()
        self._lost_before = self._lost_seen = self._lost(armed.ring.lost())
        self._addresses = flags.detail and shows_addresses()

    # -- in --------------------------------------------------------------------------

    def insert(self, same: Sequence[bytes], wall: int) -> None:
        """Handle ring entries that are alike but for their time.

        ``wall`` is CLOCK_REALTIME minus CLOCK_MONOTONIC.
        """
        record, count = record_in(same[0]), len(same)
        rule = self._rules.get(record.probe)
        if rule is None:  # shared probes: this one serves another stream
            return
        marked = self.marks.get(record.dev)
        if marked is None or record.time_ns < marked.since_ns:
            self._counts["not marked"] += count
            return
        report = rule(record)
        if report is None:
            self._counts["not in stream"] += count
            return
        inode = inode_in(record) if report.inode else None
        judged = marked.partial or self._cgroup is not None or len(self._holding) > 0
        if not judged and not marked.hears(record.time_ns, inode):
            self._counts["not marked"] += count
            return
        task = None if record.flags & _NO_TASK else (self._pid(record), record.task_start)
        key = (task, details.apart(record, report, self.flags))
        make = partial(self._event, same[0], marked, report, wall)
        deliver = partial(self._deliver, marked.fsid, key, make, count)
        if judged:
            self._judge_record(same[0], marked, inode, deliver, count)
        else:
            deliver()

    def insert_kernel_event(self, event: FsErrorEvent, entry: bytes | None, wall: int) -> None:
        """Handle an event of the kernel's own group; ``entry`` is its trace in the ring."""
        marked = self.marks.by_fsid(event.fsid)
        now, count = time.monotonic_ns(), event.error_count
        if marked is None:
            self._counts["not marked"] += count
            return
        inode = inode_of(event.handle) if event.handle else None
        origin = place(marked, time.time_ns(), SOURCE)
        trace = record_in(entry) if entry else None
        if entry and trace:
            source = self._sources[Probe.EXT4_TRACE]
            origin = origin_of(trace, marked, wall, f"{SOURCE}+{source}")
            if self.names:
                inside, owners = side_in(entry), self.names.owners
                side = side_of(trace, inside, event.error, source, owners=owners)
                origin = origin._replace(side=side)
        if inode:
            origin = origin._replace(ino=inode.ino, generation=inode.generation)
        error = event.error if self.stream is Stream.NATIVE else abs(event.error)
        key = (event.pid, trace.task_start if trace else 0)
        whole = event._replace(
            pid=self.shown_kernel_pid(event.pid, trace),
            error=error,
            origin=origin,
            fd=self.flags.fd,
            pidfd=self.flags.no_pidfd,
        )

        def deliver() -> None:
            self.queue.insert(marked.fsid, key, lambda: whole, count)

        if not self._owned(trace, place_in(entry) if entry else None, marked, count):
            return
        # without the trace nobody knows whether the inode itself is bad
        handle = event.handle if trace and not says_bad_inode(trace) else None
        self._judge(_Case(marked, now, inode, None, handle, count), deliver)

    def _deliver(self, fsid: Fsid, key: Hashable, make: Callable[[], FsErrorEvent], n: int) -> None:
        self.queue.insert(fsid, key, make)
        if n > 1:  # apart from the first, which may have been the last that fits
            self.queue.insert(fsid, key, make, n - 1)

    # -- marks -----------------------------------------------------------------------

    def _judge_record(
        self,
        entry: bytes,
        marked: MarkedFilesystem,
        inode: HandleInode | None,
        deliver: Callable[[], None],
        count: int,
    ) -> None:
        record, seen = record_in(entry), place_in(entry)
        if not self._owned(record, seen, marked, count):
            return
        where = place_of(seen)
        # of those of 7.x some could not be read in, and nobody has named them
        bad = says_bad_inode(record) or (record.probe == Probe.FSERROR and where is None)
        handle = None if bad else marked.handle(record)
        self._judge(_Case(marked, record.time_ns, inode, where, handle, count), deliver)

    def _owned(
        self,
        record: Record | None,
        seen: PlaceRecord | None,
        marked: MarkedFilesystem,
        count: int,
    ) -> bool:
        """Whether the error is of the cgroup; counted if not."""
        if self._cgroup is None:
            return True
        answer = Answer.UNKNOWN
        if record:
            answer = self._cgroup.owns(record, seen, marked.fstype)
        if answer is Answer.NO:
            self._counts["other cgroup"] += count
        elif answer is Answer.UNKNOWN:
            self._count_unknown("cgroup", "to whose cgroup it belongs", marked, count)
        return answer is Answer.YES

    def _judge(self, case: _Case, deliver: Callable[[], None]) -> None:
        """Deliver or count, or ask first; what comes behind an open question waits too."""
        known, time_ns, inode, where, handle, count = case
        if known.elsewhere:
            self.news += [gone(part) for part in self.marks.end_mounts()]
        marked, ticket = self.marks.get(known.dev), None
        if marked is None:
            self._counts["not marked"] += count
            return
        verdict = marked.verdict(time_ns, inode, where)
        if verdict is Verdict.UNDECIDED and handle and self.places:
            dev = (marked.dev >> 20, marked.dev & 0xFFFFF)
            ticket = self.places.ask(marked.mount_point, dev, handle)

        def go(answer: Place | None) -> None:
            found = marked.verdict(time_ns, inode, answer or where, final=True)
            self._finish(found, deliver, count)
            if found is Verdict.UNDECIDED:
                self._count_unknown("place", "where it happened", marked, count)

        self._holding.add(Held(go, count, ticket or 0))

    def _finish(self, verdict: Verdict, deliver: Callable[[], None], count: int) -> None:
        if verdict is Verdict.DELIVER:
            deliver()
        elif verdict is not Verdict.UNDECIDED:
            self._counts["ignored" if verdict is Verdict.IGNORED else "not marked"] += count

    def _count_unknown(self, what: str, words: str, marked: MarkedFilesystem, count: int) -> None:
        if not self._counts[f"{what} not known"]:
            self.news.append(
                f"an error on {marked.device} is not delivered: it is not known {words}; "
                "more of them are counted only"
            )
        self._counts[f"{what} not known"] += count

    @property
    def undecided(self) -> int:
        """Errors that wait for an answer, or behind others that do."""
        return self._holding.errors

    def settle(self) -> None:
        """Go on with reports whose place was asked for."""
        if self.places:
            self._holding.settle(self.places.collect())
            self.news += self.places.news
            self.places.news = []

    def note_losses(self, lost: Sequence[int]) -> None:
        """What found the ring full becomes one FAN_Q_OVERFLOW; ``lost`` is ``Ring.lost()``."""
        count = self._lost(lost)
        if count > self._lost_seen:
            self._lost_seen = count
            self._holding.add(Held(lambda _: self.queue.overflow(), 0))

    def _lost(self, lost: Sequence[int]) -> int:
        """Errors of this stream that found the ring full; hints and ends of marks are none."""
        return sum(count for probe, count in enumerate(lost) if probe in self._rules)

    def _event(
        self, entry: bytes, marked: MarkedFilesystem, report: Report, wall: int
    ) -> FsErrorEvent:
        record = record_in(entry)
        source = self._sources[Probe(record.probe)]
        origin = origin_of(record, marked, wall, source)
        if self.names:
            inside, owners = side_in(entry), self.names.owners
            side = side_of(record, inside, report.error, source, owners=owners)
            origin = origin._replace(side=side)
        return FsErrorEvent(
            fsid=marked.fsid,
            handle=marked.handle(record) if report.inode else None,
            error=report.error,
            error_count=1,
            pid=0 if record.flags & _NO_TASK else self.shown_pid(record),
            fd=self.flags.fd,
            pidfd=self.flags.no_pidfd,
            extra=tuple(details.records(record, report, self.flags, addresses=self._addresses)),
            origin=origin,
        )

    def shown_pid(self, record: Record) -> int:
        """The number of the record's task that the reader is told."""
        return self._pid(record)

    def shown_kernel_pid(self, pid: int, trace: Record | None) -> int:
        """As ``shown_pid``, of an event of the kernel's own group."""
        return trace.tid if trace and self.flags.thread else pid

    def _pid(self, record: Record) -> int:
        return record.tid if self.flags.thread else record.tgid

    def _overflow(self) -> OverflowEvent:
        return OverflowEvent(fd=self.flags.fd, pidfd=self.flags.no_pidfd, time_ns=time.time_ns())

    # -- out -------------------------------------------------------------------------

    def pop(self) -> Event:
        """Take the first queued event; IndexError when the queue is empty."""
        return self._with_pidfd(self.queue.pop())

    def read(self, size: int) -> bytes:
        """What ``read(2)`` returns. Raises BlockingIOError or OSError EINVAL as it does."""
        return reader.read(self.queue, size, self._with_pidfd)

    def _with_pidfd(self, event: Event) -> Event:
        """Open the pidfd of an event that is being read (``copy_event_to_user()``)."""
        if not self.flags.pidfd or not isinstance(event, FsErrorEvent) or not event.pid:
            return event
        try:
            pidfd = open_pidfd(event.pid, event.origin.task_start if event.origin else 0)
        except ProcessLookupError:
            return event  # as the kernel says it: made without one
        except OSError as error:
            pidfd = self.flags.failed_pidfd(error.errno or 0)
        return event._replace(pidfd=pidfd)

    def statistics(self, missed: Mapping[str, int]) -> Statistics:
        """The loss arithmetic so far; ``missed`` is what ``Armed.missed()`` has gained."""
        return Statistics(
            delivered=self.queue.delivered,
            merged=self.queue.merged,
            waiting=self.queue.inserted - self.queue.delivered + self.undecided,
            ring_full=self._lost_seen - self._lost_before,
            queue_full=self.queue.overflowed,
            not_marked=self._counts["not marked"],
            not_in_stream=self._counts["not in stream"],
            ignored=self._counts["ignored"],
            place_unknown=self._counts["place not known"],
            other_cgroup=self._counts["other cgroup"],
            cgroup_unknown=self._counts["cgroup not known"],
            missed=dict(missed),
        )
