"""An error as the marks and the queue of a group see it, once its stream has let it through."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import NamedTuple

from fserr_bpf.codec.entry import Entry
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.codec.handles import encode_handle, inode_of
from fserr_bpf.group import inforecords
from fserr_bpf.group.observed import Observed
from fserr_bpf.group.streams import Report
from fserr_bpf.marks.rules import Place, place_of
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import FileHandle, FsErrorEvent
from fserr_bpf.uapi.inode import InodeId
from fserr_bpf.uapi.record import Flag, Probe, Record

_IN_INTERRUPT = int(Flag.IN_INTERRUPT)
# Errors that say that the inode itself is bad: nobody should touch it for a name.
_BAD_INODE = {Probe.XFS_INODE_VERIFIER, Probe.XFS_INODE_SICK}
_GETS_INODE = re.compile(rb"iget|get_inode_loc|check_inode$")


class GroupReport(NamedTuple):
    """``observed`` on the file system ``marked``, reported with the signed errno ``error``.

    ``handle`` and ``inode`` are None for an error of the superblock. ``place`` is where the
    probe saw the inode; ``reachable`` says that somebody may follow the handle to learn more.
    Reports of one file system with the same ``merge_key`` merge.
    """

    observed: Observed
    marked: MarkedFilesystem
    error: int
    handle: FileHandle | None
    inode: InodeId | None
    place: Place | None
    reachable: bool
    merge_key: Hashable

    @property
    def record(self) -> Record | None:
        """That of the probe, or of the trace of an event of the kernel's group."""
        return self.observed.entry.record if self.observed.entry else None


def report_of_entry(
    observed: Observed, entry: Entry, marked: MarkedFilesystem, report: Report, flags: GroupFlags
) -> GroupReport:
    """What a probe saw.

    It merges as ``fanotify_should_merge()`` says: by the task, with its start because numbers
    are used again, and with the records of the proposal by what failed and where. Some reports
    of `proposed` merge among themselves only.
    """
    record = entry.record
    place = place_of(entry.place)
    inode = entry.inode if report.inode else None
    task = None
    if not record.flags & _IN_INTERRUPT:
        task = (record.tid if flags.thread else record.tgid, record.task_start)
    # of those of 7.x some could not be read in, and nobody has named them
    unnamed = record.probe == Probe.FSERROR and place is None
    return GroupReport(
        observed,
        marked,
        report.error,
        handle=encode_handle(marked.form, inode) if inode else None,
        inode=inode,
        place=place,
        reachable=not unnamed and not says_bad_inode(record),
        merge_key=(task, report.merges_as, inforecords.apart(record, report.error, flags)),
    )


def report_of_event(
    observed: Observed, event: FsErrorEvent, marked: MarkedFilesystem, *, signed: bool
) -> GroupReport:
    """What the kernel's own group had; ``signed`` keeps the sign of its error."""
    trace = observed.entry.record if observed.entry else None
    return GroupReport(
        observed,
        marked,
        event.error if signed else abs(event.error),
        handle=event.handle,
        inode=inode_of(event.handle) if event.handle else None,
        place=None,
        # without the trace nobody knows whether the inode itself is bad
        reachable=trace is not None and not says_bad_inode(trace),
        merge_key=(event.pid, trace.task_start if trace else 0),
    )


def says_bad_inode(record: Record) -> bool:
    """Whether the inode itself is bad, so that nobody should touch it to learn more."""
    function = record.function.split(b"\0", 1)[0]
    return record.probe in _BAD_INODE or bool(_GETS_INODE.search(function))
