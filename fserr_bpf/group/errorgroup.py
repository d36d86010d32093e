"""One group: the rules of its stream, its marks, its queue. Observations in, events out.

Nothing here waits or touches the kernel: ``source.py`` brings what the probes observed, and what
a group needs of the running system it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from fserr_bpf.codec import reader
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group.describe import Describe, Pids
from fserr_bpf.group.heldreports import HeldReports
from fserr_bpf.group.observed import Observed
from fserr_bpf.group.reports import GroupReport, report_of_entry, report_of_event
from fserr_bpf.group.statistics import DropReason, Statistics
from fserr_bpf.group.streams import RULES
from fserr_bpf.marks.cgroups import CgroupFilter
from fserr_bpf.marks.rules import Answer, Place, Verdict
from fserr_bpf.marks.table import MarkTable, gone
from fserr_bpf.model.event import Event, FileHandle, FsErrorEvent
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.loader import AttachedProbe
from fserr_bpf.probes.table import Kernel, wanted
from fserr_bpf.tasks.pidfd import open_pidfd
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.record import Probe


class LossCounts(Protocol):
    """The part of the ring that a group looks at."""

    def lost(self) -> Sequence[int]:
        """Entries that found the ring full, by probe."""


class Probes(Protocol):
    """What a group asks of the probes that are attached."""

    @property
    def probes(self) -> Sequence[AttachedProbe]:
        """Every probe and where it is."""

    @property
    def kernel(self) -> Kernel:
        """What this kernel has."""

    @property
    def ring(self) -> LossCounts:
        """Where the probes write."""


class PlaceLookup(Protocol):
    """Whoever can be asked where an inode is, after the fact."""

    news: list[str]

    def ask(self, mount_point: str, dev: Dev, handle: FileHandle) -> int | None:
        """The ticket of the answer; None where nobody can be asked."""

    def collect(self) -> Mapping[int, Place | None]:
        """The answers since the last call, by ticket."""


class ErrorGroup:
    """A FAN_FS_ERROR group over probes that are attached.

    ``owners`` is None for events without ``origin.detail``, else whether this kernel knows whose
    dirty pages an inode has. ``addresses``: details may show kernel addresses. ``pids`` says
    which numbers of tasks the reader sees. ``places`` is asked for what the probes do not
    know of marks on parts of a file system; ``cgroup`` lets its errors through only.
    ``open_process`` is as `open_pidfd`. ``news`` has, in words, what there is to tell.
    """

    def __init__(
        self,
        stream: Stream,
        flags: GroupFlags,
        marks: MarkTable,
        probes: Probes,
        queue: NotificationQueue,
        *,
        pids: Pids | None = None,
        owners: bool | None = None,
        addresses: bool = False,
        places: PlaceLookup | None = None,
        cgroup: CgroupFilter | None = None,
        open_process: Callable[[int, int], int] = open_pidfd,
    ) -> None:
        self.stream = stream
        self.flags = flags
        self.marks = marks
        self.queue = queue
        self.news: list[str] = []
        self.wanted = wanted(stream, probes.kernel)
        self._places = places
        self._cgroup = cgroup
        self._open_process = open_process
        self._held = HeldReports[GroupReport | None](self._release)
        self._rules = {p: r for p, r in RULES[stream].items() if p in self.wanted}
        sources: dict[tuple[Probe, int], str] = {}
        for attached in reversed(probes.probes):  # 0 is also who is alone, whatever its number
            sources[attached.probe, 0] = sources[attached.probe, attached.number] = attached.source
        pids = pids or Pids(thread=flags.thread)
        self._describe = Describe(
            *(flags, sources, pids), owners=owners, addresses=addresses and flags.detail
        )
        self._dropped = Counter[DropReason]()
        self._lost_before = self._lost_seen = self._lost(probes.ring.lost())

    # -- in --------------------------------------------------------------------------

    def insert(self, observed: Observed) -> None:
        """Take errors into the queue, or count why not; some wait for an answer first."""
        report = self._report(observed)
        if report is None or not self._is_of_cgroup(report):
            return
        if report.marked.elsewhere:
            self.news += [gone(part) for part in self.marks.end_mounts()]
            left = self.marks.get(report.marked.dev)
            if left is None:
                self._dropped[DropReason.NOT_MARKED] += report.observed.errors
                return
            report = report._replace(marked=left)
        if self._places is None:  # then nothing is ever waited for
            self._release(report, None)
            return
        ticket = None
        if report.handle and report.reachable and _is_undecided(report):
            marked = report.marked
            ticket = self._places.ask(marked.mount_point, marked.dev, report.handle)
        self._held.add(report, report.observed.errors, ticket)

    def _report(self, observed: Observed) -> GroupReport | None:
        """What the stream makes of it, None for nothing or for a file system without marks."""
        if observed.event:
            marked = self.marks.by_fsid(observed.event.fsid)
            if marked is None:
                self._dropped[DropReason.NOT_MARKED] += observed.errors
                return None
            signed = self.stream is Stream.NATIVE
            return report_of_event(observed, observed.event, marked, signed=signed)
        entry = observed.entry
        rule = self._rules.get(entry.record.probe) if entry else None
        if entry is None or rule is None:  # shared probes: this one serves another stream
            return None
        marked = self.marks.get(entry.dev)
        if marked is None or observed.time_ns < marked.since_ns:
            self._dropped[DropReason.NOT_MARKED] += observed.errors
            return None
        report = rule(entry.record)
        if report is None:
            self._dropped[DropReason.NOT_IN_STREAM] += observed.errors
            return None
        return report_of_entry(observed, entry, marked, report, self.flags)

    def _is_of_cgroup(self, report: GroupReport) -> bool:
        """Whether the error is of the cgroup; counted if not."""
        if self._cgroup is None:
            return True
        entry, answer = report.observed.entry, Answer.UNKNOWN
        if entry:
            answer = self._cgroup.owns(entry.record, entry.place, report.marked.driver)
        if answer is Answer.NO:
            self._dropped[DropReason.OTHER_CGROUP] += report.observed.errors
        elif answer is Answer.UNKNOWN:
            self._drop_unknown(DropReason.CGROUP_UNKNOWN, "cgroup", report)
        return answer is Answer.YES

    def _release(self, report: GroupReport | None, found: Place | None) -> None:
        """Queue or count a report whose place is ``found``; None stands for a full ring."""
        if report is None:
            self.queue.overflow()
            return
        time_ns, place = report.observed.time_ns, found or report.place
        match report.marked.verdict(time_ns, report.inode, place, final=True):
            case Verdict.DELIVER:
                self._queue(report)
            case Verdict.UNDECIDED:
                self._drop_unknown(DropReason.PLACE_UNKNOWN, "location", report)
            case Verdict.IGNORED:
                self._dropped[DropReason.IGNORED] += report.observed.errors
            case Verdict.NOT_MARKED:
                self._dropped[DropReason.NOT_MARKED] += report.observed.errors

    def _queue(self, report: GroupReport) -> None:
        fsid, errors = report.marked.fsid, report.observed.errors
        make = partial(self._describe.event, report)
        # the first of a run apart: it may be the last that fits
        first = errors if report.observed.event else 1
        self.queue.insert(fsid, report.merge_key, make, first)
        if errors > first:
            self.queue.insert(fsid, report.merge_key, make, errors - first)

    def _drop_unknown(self, reason: DropReason, what: str, report: GroupReport) -> None:
        if not self._dropped[reason]:
            self.news.append(
                f"{report.marked.device}: dropped an error whose {what} is unknown; "
                "further ones are only counted"
            )
        self._dropped[reason] += report.observed.errors

    def settle(self) -> None:
        """Go on with reports whose place was asked for."""
        if self._places:
            self._held.settle(self._places.collect())
            self.news += self._places.news
            self._places.news = []

    def note_losses(self, lost: Sequence[int]) -> None:
        """What found the ring full becomes one FAN_Q_OVERFLOW; ``lost`` is ``Ring.lost()``."""
        count = self._lost(lost)
        if count > self._lost_seen:
            self._lost_seen = count
            self._held.add(None, 0)

    def _lost(self, lost: Sequence[int]) -> int:
        """Errors of this stream that found the ring full; hints and ends of marks are none."""
        return sum(count for probe, count in enumerate(lost) if probe in self._rules)

    # -- out -------------------------------------------------------------------------

    @property
    def undecided(self) -> int:
        """Errors that wait for an answer, or behind others that do."""
        return self._held.errors

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
            pidfd = self._open_process(event.pid, event.origin.task_start if event.origin else 0)
        except ProcessLookupError:
            return event  # as the kernel says it: made without one
        except OSError as error:
            pidfd = self.flags.failed_pidfd(error.errno or 0)
        return event._replace(pidfd=pidfd)

    def statistics(self, missed: Mapping[str, int]) -> Statistics:
        """The loss arithmetic so far; ``missed`` is what ``AttachedProbes.missed()`` has gained."""
        dropped = {reason: self._dropped[reason] for reason in DropReason}
        dropped[DropReason.RING_FULL] = self._lost_seen - self._lost_before
        dropped[DropReason.QUEUE_FULL] = self.queue.overflowed
        queue = self.queue
        waiting = queue.inserted + queue.merged - queue.delivered - queue.delivered_merged
        return Statistics(
            delivered=self.queue.delivered,
            merged=self.queue.delivered_merged,
            waiting=waiting + self.undecided,
            dropped=dropped,
            missed=dict(missed),
        )


def _is_undecided(report: GroupReport) -> bool:
    verdict = report.marked.verdict(report.observed.time_ns, report.inode, report.place)
    return verdict is Verdict.UNDECIDED
