"""What BPF saw beyond the fanotify record, from a ring record and the mark it belongs to."""

from __future__ import annotations

import os
import re

from fserr_bpf.marks import MarkedFilesystem
from fserr_bpf.model.event import Origin, PathState, Side
from fserr_bpf.streams import kind_of
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import Flag, Probe, Record
from fserr_bpf.uapi.side import FSERR_NAME_SIZE, NameFlag, SideRecord

_NO_TASK = int(Flag.NO_TASK)
_CALLERS = 8
# frames of the probed function itself, or of BPF and the tracepoint
_OWN_FRAMES = {"kprobe": 1, "raw_tracepoint": 2, "tracepoint": 2}
# Errors that say that the inode itself is bad: nobody should touch it for a name.
_BAD_INODE = {Probe.XFS_INODE_VERIFIER, Probe.XFS_INODE_SICK}
_GETS_INODE = re.compile(r"iget|get_inode_loc|check_inode$")
# enum fserror_type of include/linux/fserror.h, 7.0 and later
_FSERROR_KINDS = (
    ErrorKind.READ,
    ErrorKind.WRITEBACK,
    ErrorKind.DIRECT_READ,
    ErrorKind.DIRECT_WRITE,
    ErrorKind.DATA_LOST,
    ErrorKind.METADATA,
)


def place(marked: MarkedFilesystem, time_ns: int, source: str) -> Origin:
    """An origin that knows the file system only; ``time_ns`` is CLOCK_REALTIME."""
    return Origin(
        time_ns=time_ns,
        dev=(marked.dev >> 20, marked.dev & 0xFFFFF),
        device=marked.device,
        mount_point=marked.mount_point,
        fstype=marked.fstype,
        ino=0,
        generation=0,
        tid=0,
        comm="",
        source=source,
    )


def origin_of(record: Record, marked: MarkedFilesystem, wall: int, source: str) -> Origin:
    """All that ``record`` says; ``wall`` is CLOCK_REALTIME minus CLOCK_MONOTONIC."""
    bystander = record.flags & _NO_TASK
    return place(marked, record.time_ns + wall, source)._replace(
        ino=record.ino,
        generation=record.generation,
        tid=0 if bystander else record.tid,
        comm="" if bystander else _text(record.comm),
        function=_text(record.function),
        line=record.line,
        failaddr=record.failaddr,
        block=record.block,
        task_start=0 if bystander else record.task_start,
    )


def side_of(
    record: Record, side: SideRecord | None, error: int, source: str, *, owners: bool
) -> Side:
    """The details of an error; ``error`` is that of its report.

    ``side`` is None where the probes were attached without details. ``owners``: the inode
    knows who wrote to it.
    """
    kind = kind_of(record, error)
    if side and side.type and kind is not ErrorKind.SHUTDOWN:
        known = side.type <= len(_FSERROR_KINDS)
        kind = _FSERROR_KINDS[side.type - 1] if known else ErrorKind.METADATA
    state = PathState.NOT_ASKED if says_bad_inode(record) else PathState.NONE
    told = Side(kind.name, length=record.length, path_state=state)
    if record.probe == Probe.FSERROR:  # there the field is the position in the file
        told = told._replace(pos=record.block)
    if side is None:
        return told
    name, name_state = _name(side)
    if record.probe == Probe.FSERROR and kind is ErrorKind.METADATA and not name_state:
        told = told._replace(path_state=PathState.NOT_ASKED)  # perhaps it could not be read in
    owner, whose = side.task_cgroup, "task"
    if owners and kind is ErrorKind.WRITEBACK and side.inode_cgroup:
        owner, whose = side.inode_cgroup, "inode"
    elif record.flags & _NO_TASK:
        owner, whose = 0, ""
    return told._replace(
        stack=tuple(filter(None, side.stack[_OWN_FRAMES[source.partition(":")[0]] :]))[:_CALLERS],
        name=name,
        name_state=name_state,
        cgroup_id=owner,
        cgroup_of=whose,
    )


def says_bad_inode(record: Record) -> bool:
    """Whether the inode itself is bad, so that nobody should touch it to learn more."""
    return record.probe in _BAD_INODE or bool(_GETS_INODE.search(_text(record.function)))


def _name(side: SideRecord) -> tuple[str, str]:
    """The name relative to the file system's root, and how much of it is known."""
    names = [name.split(b"\0", 1)[0] for name in side.names]
    parts = [name for name in names if name]
    whole = bool(side.name_flags & NameFlag.WHOLE)
    for depth, part in enumerate(parts):
        if len(part) == FSERR_NAME_SIZE - 1:  # may have been cut
            parts, whole = parts[:depth], False
            break
    if not parts and not whole:
        return "", ""
    unlinked = side.name_flags & NameFlag.DELETED
    state = "part" if not whole else "deleted" if unlinked else "whole"
    return os.fsdecode(b"/".join(reversed(parts))), state


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="backslashreplace")
