"""Ring entries: bytes -> Entry, the record and what the probes put behind it."""

from __future__ import annotations

from itertools import takewhile
from typing import NamedTuple

from fserr_bpf.codec.record import decode_record
from fserr_bpf.errors import DecodeError
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.entry import (
    ANCESTOR,
    CGROUPS,
    DETAIL,
    DETAIL_SIZE,
    FSERR_ALIASES_MAX,
    FSERR_DEPTH_MAX,
    NAMES,
    PLACE,
    PLACE_SIZE,
    STACK,
    DetailRecord,
    PlaceRecord,
)
from fserr_bpf.uapi.inode import InodeId
from fserr_bpf.uapi.record import RECORD, Record

_CHAIN = FSERR_DEPTH_MAX * ANCESTOR.size
_SIZES = (0, DETAIL_SIZE, PLACE_SIZE, DETAIL_SIZE + PLACE_SIZE)


class Entry(NamedTuple):
    """One entry of the ring. ``detail`` and ``place`` are None if the probes write none."""

    record: Record
    detail: DetailRecord | None = None
    place: PlaceRecord | None = None

    @property
    def dev(self) -> Dev:
        """The superblock's device."""
        return Dev.of(self.record.dev)

    @property
    def inode(self) -> InodeId:
        """The inode of a record that has one, as its handle would say it."""
        record = self.record
        return InodeId(record.ino, record.generation, record.subvolume)


def decode_entry(data: bytes) -> Entry:
    """Return the one entry that ``data`` is.

    Raises DecodeError as ``decode_record()``, and at the record's end for a size that no kind
    of entry has.
    """
    record = decode_record(data[: RECORD.size])
    size = len(data) - RECORD.size
    if size not in _SIZES:
        raise DecodeError(RECORD.size, f"{size} bytes behind the record, not one of {_SIZES}")
    if not size:
        return Entry(record)
    behind = memoryview(data)[RECORD.size :]
    return Entry(
        record,
        _detail(behind) if size != PLACE_SIZE else None,
        _place(behind[-PLACE_SIZE:]) if size != DETAIL_SIZE else None,
    )


def _detail(data: memoryview) -> DetailRecord:
    task_cgroup, inode_cgroup, type_, name_flags = DETAIL.unpack_from(data, STACK.size)
    return DetailRecord(
        stack=STACK.unpack_from(data),
        task_cgroup=task_cgroup,
        inode_cgroup=inode_cgroup,
        type=type_,
        name_flags=name_flags,
        names=NAMES.unpack_from(data, STACK.size + DETAIL.size),
    )


def _place(data: memoryview) -> PlaceRecord:
    """Zeros at the ends of cgroups and ancestors are left out."""
    flags, nlink, mode, *alias_flags = PLACE.unpack_from(data)
    task, inode = PLACE.size, PLACE.size + CGROUPS.size
    chains = (inode + CGROUPS.size + n * _CHAIN for n in range(FSERR_ALIASES_MAX))
    return PlaceRecord(
        flags=flags,
        nlink=nlink,
        mode=mode,
        alias_flags=tuple(alias_flags),
        task_cgroups=tuple(takewhile(bool, CGROUPS.unpack_from(data, task))),
        inode_cgroups=tuple(takewhile(bool, CGROUPS.unpack_from(data, inode))),
        ancestors=tuple(_chain(data[at : at + _CHAIN]) for at in chains),
    )


def _chain(data: memoryview) -> tuple[InodeId, ...]:
    above = (InodeId._make(fields) for fields in ANCESTOR.iter_unpack(data))
    return tuple(takewhile(lambda ancestor: ancestor.ino, above))
