"""Mirror of ``bpf/entry.h``: what follows a record in the ring.

The detail record under ``run --detail``, then the place where marks ask for it. A test
compares every offset with the compiled header.
"""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import NamedTuple

from fserr_bpf.uapi.inode import InodeId

FSERR_STACK_MAX = 10
FSERR_NAMES_MAX = 8
FSERR_NAME_SIZE = 64
FSERR_ALIASES_MAX = 3
FSERR_DEPTH_MAX = 24
FSERR_CGROUPS_MAX = 12


class NameFlag(IntFlag):
    """``FSERR_NAME_*`` flags of a detail record."""

    WHOLE = 1 << 0
    DELETED = 1 << 1


class PlaceFlag(IntFlag):
    """``FSERR_PLACE_*`` flags of a place."""

    INODE = 1 << 0
    MORE = 1 << 1


class AliasFlag(IntFlag):
    """``FSERR_ALIAS_*`` flags of one name in a place."""

    THERE = 1 << 0
    WHOLE = 1 << 1
    DELETED = 1 << 2


class DetailRecord(NamedTuple):
    """``struct fserr_detail``; ``names`` are the inode's own and its parents', NUL-terminated."""

    stack: tuple[int, ...]
    task_cgroup: int
    inode_cgroup: int
    type: int
    name_flags: int
    names: tuple[bytes, ...]


class PlaceRecord(NamedTuple):
    """``struct fserr_place``; ``ancestors`` has those of each name, innermost first."""

    flags: int
    nlink: int
    mode: int
    alias_flags: tuple[int, ...]
    task_cgroups: tuple[int, ...]
    inode_cgroups: tuple[int, ...]
    ancestors: tuple[tuple[InodeId, ...], ...]


STACK = Struct(f"<{FSERR_STACK_MAX}Q")
# behind the stack: task_cgroup, inode_cgroup, type, name_flags
DETAIL = Struct("<QQII")
NAMES = Struct(f"{FSERR_NAME_SIZE}s" * FSERR_NAMES_MAX)
DETAIL_SIZE = STACK.size + DETAIL.size + NAMES.size

# flags, nlink, mode, alias_flags
PLACE = Struct(f"<III{FSERR_ALIASES_MAX}I")
CGROUPS = Struct(f"<{FSERR_CGROUPS_MAX}Q")
# struct fserr_ancestor: an InodeId, narrow
ANCESTOR = Struct("<QII")
PLACE_SIZE = PLACE.size + 2 * CGROUPS.size + FSERR_ALIASES_MAX * FSERR_DEPTH_MAX * ANCESTOR.size
