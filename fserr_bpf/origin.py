"""What BPF saw beyond the fanotify record, from a ring record and the mark it belongs to."""

from __future__ import annotations

from fserr_bpf.marks import MarkedFilesystem
from fserr_bpf.model.event import Origin
from fserr_bpf.uapi.record import Flag, Record

_NO_TASK = int(Flag.NO_TASK)


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


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="backslashreplace")
