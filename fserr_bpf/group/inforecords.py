"""What a group that asks for it gets beyond upstream's records: the proposal's two."""

from __future__ import annotations

from collections.abc import Iterator

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.codec.proposed import DetailedError, detailed_error_record, error_location_record
from fserr_bpf.group.streams import kind_of, names_place
from fserr_bpf.model.event import InfoRecord
from fserr_bpf.uapi.record import Record


def apart(record: Record, error: int, flags: GroupFlags) -> tuple[int, int] | None:
    """What keeps reports of one task from merging, besides what always does.

    ``error`` is that of the report.
    """
    if not (flags.detail or flags.location):
        return None
    return kind_of(record, error), record.failaddr


def records(record: Record, error: int, flags: GroupFlags, addresses: bool) -> Iterator[InfoRecord]:
    """The info records behind ERROR; without ``addresses`` failaddr is 0.

    ``error`` is that of the report.
    """
    if flags.detail:
        yield detailed_error_record(
            DetailedError(
                kind=kind_of(record, error),
                length=record.length,
                block=record.block,
                failaddr=record.failaddr if addresses else 0,
            )
        )
    if flags.location and names_place(record):
        yield error_location_record(record.function.split(b"\0", 1)[0], record.line)
