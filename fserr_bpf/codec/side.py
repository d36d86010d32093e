"""Ring entries that may carry more than the record: bytes -> Record, SideRecord, PlaceRecord."""

from __future__ import annotations

from itertools import takewhile

from fserr_bpf.codec.record import decode_record
from fserr_bpf.errors import DecodeError
from fserr_bpf.uapi.record import RECORD, Record
from fserr_bpf.uapi.side import (
    ANCESTOR,
    CGROUPS,
    FSERR_ALIASES_MAX,
    FSERR_DEPTH_MAX,
    NAMES,
    PLACE,
    PLACE_SIZE,
    SIDE,
    SIDE_SIZE,
    STACK,
    Ancestor,
    PlaceRecord,
    SideRecord,
)

_CHAIN = FSERR_DEPTH_MAX * ANCESTOR.size
_SIZES = (0, SIDE_SIZE, PLACE_SIZE, SIDE_SIZE + PLACE_SIZE)


def record_in(entry: bytes) -> Record:
    """The record that ``entry`` begins with; DecodeError as ``decode_record()``."""
    return decode_record(entry[: RECORD.size])


def side_in(entry: bytes) -> SideRecord | None:
    """The side record, None where the probes were compiled without it.

    Raises DecodeError, at the record's end, for a size that no kind of entry has.
    """
    if _behind(entry) not in _SIZES[1::2]:
        return None
    side = memoryview(entry)[RECORD.size :]
    task_cgroup, inode_cgroup, type_, name_flags = SIDE.unpack_from(side, STACK.size)
    return SideRecord(
        stack=STACK.unpack_from(side),
        task_cgroup=task_cgroup,
        inode_cgroup=inode_cgroup,
        type=type_,
        name_flags=name_flags,
        names=NAMES.unpack_from(side, STACK.size + SIDE.size),
    )


def place_in(entry: bytes) -> PlaceRecord | None:
    """The place, None where the probes were compiled without it; zeros at the ends left out.

    Raises DecodeError as ``side_in()``.
    """
    if _behind(entry) not in _SIZES[2:]:
        return None
    place = memoryview(entry)[-PLACE_SIZE:]
    flags, nlink, mode, *alias_flags = PLACE.unpack_from(place)
    task, inode = PLACE.size, PLACE.size + CGROUPS.size
    chains = (inode + CGROUPS.size + n * _CHAIN for n in range(FSERR_ALIASES_MAX))
    return PlaceRecord(
        flags=flags,
        nlink=nlink,
        mode=mode,
        alias_flags=tuple(alias_flags),
        task_cgroups=tuple(takewhile(bool, CGROUPS.unpack_from(place, task))),
        inode_cgroups=tuple(takewhile(bool, CGROUPS.unpack_from(place, inode))),
        ancestors=tuple(_chain(place[at : at + _CHAIN]) for at in chains),
    )


def _behind(entry: bytes) -> int:
    """Bytes behind the record."""
    size = len(entry) - RECORD.size
    if size not in _SIZES:
        raise DecodeError(RECORD.size, f"{size} bytes behind the record, not one of {_SIZES}")
    return size


def _chain(data: memoryview) -> tuple[Ancestor, ...]:
    above = (Ancestor._make(fields) for fields in ANCESTOR.iter_unpack(data))
    return tuple(takewhile(lambda ancestor: ancestor.ino, above))
