"""What probes push and marks say, as values for tests that need no kernel."""

from __future__ import annotations

from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import Fsid
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.entry import (
    ANCESTOR,
    CGROUPS,
    DETAIL,
    FSERR_ALIASES_MAX,
    FSERR_CGROUPS_MAX,
    FSERR_DEPTH_MAX,
    FSERR_NAME_SIZE,
    FSERR_NAMES_MAX,
    FSERR_STACK_MAX,
    NAMES,
    PLACE,
    STACK,
    DetailRecord,
    PlaceFlag,
    PlaceRecord,
)
from fserr_bpf.uapi.inode import InodeId
from fserr_bpf.uapi.record import FSERR_VERSION, RECORD, Probe, Record

EXT4, XFS, BTRFS, F2FS = 0xEF53, 0x58465342, 0x9123683E, 0xF2F52010
DEV = Dev(254, 3)

_NOTHING = Record._make((FSERR_VERSION, 0, RECORD.size, *[0] * 20, b"", b""))._replace(
    time_ns=1000, dev=DEV.number, magic=EXT4, error=-5, tgid=70, tid=71, task_start=7
)


def record(
    probe: Probe, *, flags: int = 0, comm: bytes = b"cat", function: bytes = b"", **fields: int
) -> Record:
    """A record of ``probe``: error -5 in task 70/71 on `DEV`, ext4, and what ``fields`` say.

    ``comm`` and ``function`` are without their padding.
    """
    return _NOTHING._replace(
        probe=int(probe),
        flags=int(flags),
        comm=comm.ljust(16, b"\0"),
        function=function.ljust(48, b"\0"),
        **fields,
    )


def detail(
    *names: bytes,
    stack: tuple[int, ...] = (),
    task_cgroup: int = 0,
    inode_cgroup: int = 0,
    type: int = 0,
    name_flags: int = 0,
) -> DetailRecord:
    """A detail record; ``names`` innermost first, as the probe writes them."""
    padded = (*names, *[b""] * (FSERR_NAMES_MAX - len(names)))
    return DetailRecord(
        stack=(*stack, *[0] * (FSERR_STACK_MAX - len(stack))),
        task_cgroup=task_cgroup,
        inode_cgroup=inode_cgroup,
        type=type,
        name_flags=name_flags,
        names=tuple(name.ljust(FSERR_NAME_SIZE, b"\0") for name in padded),
    )


def place(
    *names: tuple[int, tuple[InodeId, ...]],
    nlink: int = 1,
    mode: int = 0o100644,
    flags: int = PlaceFlag.INODE,
    task_cgroups: tuple[int, ...] = (1,),
    inode_cgroups: tuple[int, ...] = (),
) -> PlaceRecord:
    """A place record: ``names`` are the alias flags and the folders above, innermost first."""
    padded = (*names, *[(0, ())] * (FSERR_ALIASES_MAX - len(names)))
    return PlaceRecord(
        flags=int(flags),
        nlink=nlink,
        mode=mode,
        alias_flags=tuple(int(flags) for flags, _ in padded),
        task_cgroups=task_cgroups,
        inode_cgroups=inode_cgroups,
        ancestors=tuple(chain for _, chain in padded),
    )


def marked(**changes: object) -> MarkedFilesystem:
    """An ext4 on `DEV` that was first marked at 50, with no mark on all of it yet."""
    fields: dict[str, object] = {
        "path": "/srv",
        "dev": DEV,
        "fsid": Fsid(1, 2),
        "form": 1,
        "fstype": "ext4",
        "device": "sda3",
        "mount_point": "/srv",
        "since_ns": 50,
        "whole_ns": None,
    }
    return MarkedFilesystem(**(fields | changes))  # type: ignore[arg-type]


def record_bytes(record: Record) -> bytes:
    """A record as the probes write it."""
    return RECORD.pack(*record)


def entry_bytes(
    record: Record, detail: DetailRecord | None = None, place: PlaceRecord | None = None
) -> bytes:
    """An entry of the ring as the probes write it."""
    data = record_bytes(record)
    if detail:
        data += STACK.pack(*detail.stack)
        data += DETAIL.pack(
            detail.task_cgroup, detail.inode_cgroup, detail.type, detail.name_flags
        ) + NAMES.pack(*detail.names)
    if place:
        data += PLACE.pack(place.flags, place.nlink, place.mode, *place.alias_flags)
        for ids in (place.task_cgroups, place.inode_cgroups):
            data += CGROUPS.pack(*ids, *[0] * (FSERR_CGROUPS_MAX - len(ids)))
        for chain in place.ancestors:
            above = b"".join(ANCESTOR.pack(*folder) for folder in chain)
            data += above.ljust(FSERR_DEPTH_MAX * ANCESTOR.size, b"\0")
    return data
