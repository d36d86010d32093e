"""Ring entries that may carry a side record: bytes -> Record and SideRecord."""

from __future__ import annotations

from fserr_bpf.codec.record import decode_record
from fserr_bpf.errors import DecodeError
from fserr_bpf.uapi.record import RECORD, Record
from fserr_bpf.uapi.side import NAMES, SIDE, SIDE_SIZE, STACK, SideRecord


def record_in(entry: bytes) -> Record:
    """The record that ``entry`` begins with; DecodeError as ``decode_record()``."""
    return decode_record(entry[: RECORD.size])


def side_in(entry: bytes) -> SideRecord | None:
    """What follows the record, None where the probes were compiled without it.

    Raises DecodeError, at the record's end, for another size.
    """
    side = entry[RECORD.size :]
    if not side:
        return None
    if len(side) != SIDE_SIZE:
        raise DecodeError(RECORD.size, f"side record of {len(side)} bytes, not {SIDE_SIZE}")
    task_cgroup, inode_cgroup, type_, name_flags = SIDE.unpack_from(side, STACK.size)
    return SideRecord(
        stack=STACK.unpack_from(side),
        task_cgroup=task_cgroup,
        inode_cgroup=inode_cgroup,
        type=type_,
        name_flags=name_flags,
        names=NAMES.unpack_from(side, STACK.size + SIDE.size),
    )
