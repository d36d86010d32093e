"""What a group that asked for it is told beyond upstream's records: the proposal's two."""

from __future__ import annotations

from collections.abc import Iterator

from fserr_bpf.codec.detail import Detail, detail_record, location_record
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.model.event import InfoRecord
from fserr_bpf.streams import Report, kind_of, names_place
from fserr_bpf.uapi.record import Record


def apart(record: Record, report: Report, flags: GroupFlags) -> tuple[int, int] | None:
    """What keeps reports of one task from merging, besides what always does."""
    if not (flags.detail or flags.location):
        return None
    return kind_of(record, report.error), record.failaddr


def records(
    record: Record, report: Report, flags: GroupFlags, *, addresses: bool
) -> Iterator[InfoRecord]:
    """The info records behind ERROR; without ``addresses`` failaddr is 0."""
    if flags.detail:
        yield detail_record(
            Detail(
                kind=kind_of(record, report.error),
                length=record.length,
                block=record.block,
                failaddr=record.failaddr if addresses else 0,
            )
        )
    if flags.location and names_place(record):
        yield location_record(record.function.split(b"\0", 1)[0], record.line)
