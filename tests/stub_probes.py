"""Probes and a ring that hold what a test puts there, for groups that need no kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from fserr_bpf.codec.entry import Entry
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group.describe import Pids
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.observed import Observed
from fserr_bpf.marks.cgroups import CgroupFilter
from fserr_bpf.marks.rules import Answer, Place
from fserr_bpf.marks.table import MarkedFilesystem, MarkTable
from fserr_bpf.model.event import FileHandle, FsErrorEvent
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.probes.loader import AttachedProbe
from fserr_bpf.probes.table import Kernel, Kind
from fserr_bpf.tasks.pidfd import open_pidfd
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.entry import DetailRecord, PlaceRecord
from fserr_bpf.uapi.record import FSERR_PROBE_MAX, Probe, Record

KPROBES = Kernel(kprobes=True, fserror=False, abort=False, sick=True, gate=True)
NO_KPROBES = Kernel(kprobes=False, fserror=False, abort=False, sick=True, gate=True)
SEVEN = Kernel(kprobes=True, fserror=True, abort=False, sick=True, gate=True)
OFFSET = 1_000_000
"""CLOCK_REALTIME minus CLOCK_MONOTONIC, in nanoseconds."""


@dataclass
class StubRing:
    """``batches`` are what each ``drain()`` gives, ``counts`` what found it full."""

    batches: list[list[bytes]] = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0] * FSERR_PROBE_MAX)

    def drain(self) -> list[bytes]:
        return self.batches.pop(0) if self.batches else []

    def lost(self) -> Sequence[int]:
        return tuple(self.counts)

    def fileno(self) -> int:
        return 77


@dataclass
class StubProbes:
    """A kprobe on a function named after each probe."""

    kernel: Kernel = KPROBES
    ring: StubRing = field(default_factory=StubRing)
    probes: list[AttachedProbe] = field(
        default_factory=lambda: [AttachedProbe(p, Kind.KPROBE, p.name.lower()) for p in Probe]
    )

    def attached(self) -> AttachedProbes:
        """As what holds the real ones."""
        return cast(AttachedProbes, self)


@dataclass
class StubPlaces:
    """Answers that come when the test says so; ``asked`` has every question."""

    tickets: list[int | None] = field(default_factory=list)
    asked: list[tuple[str, Dev, FileHandle]] = field(default_factory=list)
    answers: dict[int, Place | None] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)

    def ask(self, mount_point: str, dev: Dev, handle: FileHandle) -> int | None:
        self.asked.append((mount_point, dev, handle))
        return self.tickets.pop(0) if self.tickets else len(self.asked)

    def collect(self) -> Mapping[int, Place | None]:
        answers, self.answers = self.answers, {}
        return answers


@dataclass
class StubCgroup:
    """A filter that answers by the process of the record."""

    answers: dict[int, Answer]
    places: list[PlaceRecord | None] = field(default_factory=list)

    def owns(self, record: Record, place: PlaceRecord | None, fstype: str) -> Answer:
        self.places.append(place)
        assert fstype == "ext4"
        return self.answers[record.tgid]

    def filter(self) -> CgroupFilter:
        return cast(CgroupFilter, self)


@dataclass
class StubFanotifyGroup:
    """Stands for the real group: what it was asked, and the reads that it answers."""

    flags: int
    marked: list[str] = field(default_factory=list)
    reads: list[bytes] = field(default_factory=list)
    closed: bool = False

    def fileno(self) -> int:
        return 44

    def mark(self, path: str) -> None:
        self.marked.append(path)

    def read(self) -> bytes:
        return self.reads.pop(0) if self.reads else b""

    def close(self) -> None:
        self.closed = True


def group_of(
    *marks: MarkedFilesystem,
    stream: Stream = Stream.PROPOSED,
    flags: GroupFlags = GroupFlags(),  # noqa: B008
    probes: StubProbes | None = None,
    max_events: int | None = None,
    pids: Pids | None = None,
    owners: bool | None = None,
    addresses: bool = False,
    places: StubPlaces | None = None,
    cgroup: StubCgroup | None = None,
    open_process: Callable[[int, int], int] = open_pidfd,
) -> ErrorGroup:
    """A group with ``marks``."""
    table = MarkTable(())
    table.set(marks)
    return ErrorGroup(
        stream,
        flags,
        table,
        probes or StubProbes(),
        NotificationQueue(max_events),
        pids=pids,
        owners=owners,
        addresses=addresses,
        places=places,
        cgroup=cgroup.filter() if cgroup else None,
        open_process=open_process,
    )


def observed(
    record: Record,
    errors: int = 1,
    *,
    detail: DetailRecord | None = None,
    place: PlaceRecord | None = None,
) -> Observed:
    """A run of ``errors`` entries."""
    return Observed(Entry(record, detail, place), errors, record.time_ns, OFFSET)


def kernel_event(event: FsErrorEvent, trace: Entry | None = None, time_ns: int = 1000) -> Observed:
    """An event of the kernel's own group."""
    return Observed(trace, event.error_count, time_ns, OFFSET, event)


def errors_in(group: ErrorGroup) -> list[FsErrorEvent]:
    """All events that wait, taken out."""
    events = [group.pop() for _ in range(len(group.queue))]
    assert all(isinstance(event, FsErrorEvent) for event in events)
    return [event for event in events if isinstance(event, FsErrorEvent)]
