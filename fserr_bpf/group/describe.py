"""Events of reports: the record that fanotify has, and all that BPF saw beyond it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from fserr_bpf.codec.entry import Entry
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group import inforecords
from fserr_bpf.group.kernelgroup import SOURCE
from fserr_bpf.group.reports import GroupReport, says_bad_inode
from fserr_bpf.group.streams import ESHUTDOWN, kind_of, reason_of
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import Detail, FsErrorEvent, InfoRecord, Origin, OverflowEvent, PathState
from fserr_bpf.uapi.entry import FSERR_NAME_SIZE, DetailRecord, NameFlag
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import Flag, Probe, Record, attachment_of

_IN_INTERRUPT = int(Flag.IN_INTERRUPT)
_CALLERS = 8
# frames of the probed function itself, or of BPF and the tracepoint
_OWN_FRAMES = {"kprobe": 1, "raw_tracepoint": 2, "tracepoint": 2}
# enum fserror_type of include/linux/fserror.h, 7.0 and later
_FSERROR_KINDS = (
    ErrorKind.READ,
    ErrorKind.WRITEBACK,
    ErrorKind.DIRECT_READ,
    ErrorKind.DIRECT_WRITE,
    ErrorKind.DATA_LOST,
    ErrorKind.METADATA,
)


class Pids:
    """Which number of a task the reader is shown: that of the thread, or of its process."""

    def __init__(self, *, thread: bool) -> None:
        self.thread = thread

    def of_task(self, record: Record) -> int:
        """The number of the task that a probe saw."""
        return record.tid if self.thread else record.tgid

    def of_event(self, pid: int, trace: Record | None) -> int:
        """The number for ``pid`` of an event of the kernel's own group."""
        return self.of_task(trace) if trace and self.thread else pid


class Describe:
    """Makes the events of one group.

    ``sources`` names each probe, at each of its attachments, as events do. ``owners`` is
    whether the inode knows who wrote to it, None where events have no ``origin.detail``.
    ``addresses``: failaddr may be shown.
    """

    def __init__(
        self,
        flags: GroupFlags,
        sources: Mapping[tuple[Probe, int], str],
        pids: Pids,
        *,
        owners: bool | None,
        addresses: bool,
    ) -> None:
        self._flags = flags
        self._fd, self._pidfd = flags.fd, flags.no_pidfd
        self._sources = sources
        self._pids = pids
        self._owners = owners
        self._addresses = addresses

    def event(self, report: GroupReport) -> FsErrorEvent:
        """The event of the first of the errors; the queue counts them."""
        observed, record = report.observed, report.record
        pid, extra = 0, tuple[InfoRecord, ...]()
        if observed.event:
            pid = self._pids.of_event(observed.event.pid, record)
            extra = observed.event.extra
        elif record and not record.flags & _IN_INTERRUPT:
            pid = self._pids.of_task(record)
        if record and not observed.event:
            extra = tuple(inforecords.records(record, report.error, self._flags, self._addresses))
        return FsErrorEvent(
            fsid=report.marked.fsid,
            handle=report.handle,
            error=report.error,
            error_count=1,
            pid=pid,
            fd=self._fd,
            pidfd=self._pidfd,
            extra=extra,
            origin=self._origin(report),
        )

    def _origin(self, report: GroupReport) -> Origin:
        observed, marked = report.observed, report.marked
        time_ns = observed.time_ns + observed.realtime_offset_ns
        if not observed.entry:
            return _with_inode(_place(marked, time_ns, SOURCE), report)
        record = observed.entry.record
        probe = self._sources[Probe(record.probe), attachment_of(record.flags)]
        source = f"{SOURCE}+{probe}" if observed.event else probe
        origin = _seen(record, marked, record.time_ns + observed.realtime_offset_ns, source)
        if abs(report.error) == ESHUTDOWN:
            origin = origin._replace(reason=reason_of(record, report.error))
        if self._owners is not None:
            detail = detail_of(observed.entry, report.error, probe, owners=self._owners)
            origin = origin._replace(detail=detail)
        return _with_inode(origin, report) if observed.event else origin


def overflow_event(flags: GroupFlags) -> OverflowEvent:
    """FAN_Q_OVERFLOW as a group with ``flags`` has it, now."""
    return OverflowEvent(fd=flags.fd, pidfd=flags.no_pidfd, time_ns=time.time_ns())


def _place(marked: MarkedFilesystem, time_ns: int, source: str) -> Origin:
    """An origin that knows the file system only; ``time_ns`` is CLOCK_REALTIME."""
    return Origin(
        time_ns=time_ns,
        dev=marked.dev,
        device=marked.device,
        mount_point=marked.mount_point,
        fstype=marked.fstype,
        ino=0,
        generation=0,
        tid=0,
        comm="",
        source=source,
    )


def _with_inode(origin: Origin, report: GroupReport) -> Origin:
    if not report.inode:
        return origin
    return origin._replace(ino=report.inode.ino, generation=report.inode.generation)


def _seen(record: Record, marked: MarkedFilesystem, time_ns: int, source: str) -> Origin:
    """All that ``record`` says."""
    interrupted = record.flags & _IN_INTERRUPT
    return _place(marked, time_ns, source)._replace(
        ino=record.ino,
        generation=record.generation,
        tid=0 if interrupted else record.tid,
        comm="" if interrupted else _text(record.comm),
        function=_text(record.function),
        line=record.line,
        failaddr=record.failaddr,
        block=record.block,
        task_start=0 if interrupted else record.task_start,
    )


def detail_of(entry: Entry, error: int, source: str, *, owners: bool) -> Detail:
    """The details of an error; ``error`` is that of its report, ``source`` names the probe.

    ``owners``: the inode knows who wrote to it.
    """
    record, seen = entry.record, entry.detail
    kind = kind_of(record, error)
    if seen and seen.type and abs(error) != ESHUTDOWN:
        known = seen.type <= len(_FSERROR_KINDS)
        kind = _FSERROR_KINDS[seen.type - 1] if known else ErrorKind.METADATA
    state = PathState.NOT_ASKED if says_bad_inode(record) else PathState.NONE
    detail = Detail(kind.name, length=record.length, path_state=state)
    if record.probe == Probe.FSERROR:  # there the field is the position in the file
        detail = detail._replace(pos=record.block)
    if seen is None:
        return detail
    name, name_state = _name(seen)
    if record.probe == Probe.FSERROR and kind is ErrorKind.METADATA and not name_state:
        detail = detail._replace(path_state=PathState.NOT_ASKED)  # perhaps it could not be read in
    owner, whose = seen.task_cgroup, "task"
    if owners and kind is ErrorKind.WRITEBACK and seen.inode_cgroup:
        owner, whose = seen.inode_cgroup, "inode"
    elif record.flags & _IN_INTERRUPT:
        owner, whose = 0, ""
    return detail._replace(
        stack=tuple(filter(None, seen.stack[_OWN_FRAMES[source.partition(":")[0]] :]))[:_CALLERS],
        name=name,
        name_state=name_state,
        cgroup_id=owner,
        cgroup_of=whose,
    )


def _name(detail: DetailRecord) -> tuple[str, str]:
    """The name relative to the file system's root, and how much of it is known."""
    names = [name.split(b"\0", 1)[0] for name in detail.names]
    parts = [name for name in names if name]
    whole = bool(detail.name_flags & NameFlag.WHOLE)
    for depth, part in enumerate(parts):
        if len(part) == FSERR_NAME_SIZE - 1:  # may have been cut
            parts, whole = parts[:depth], False
            break
    if not parts and not whole:
        return "", ""
    # the root is never hashed, and cannot be unlinked
    unlinked = parts and detail.name_flags & NameFlag.DELETED
    state = "part" if not whole else "deleted" if unlinked else "whole"
    return os.fsdecode(b"/".join(reversed(parts))), state


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="backslashreplace")
