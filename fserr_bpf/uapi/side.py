"""Mirror of ``bpf/side.h``: what follows a record in the ring under ``run --detail``.

A test compares every offset with the compiled header.
"""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import NamedTuple

FSERR_STACK_MAX = 10
FSERR_NAMES_MAX = 8
FSERR_NAME_SIZE = 64


class NameFlag(IntFlag):
    """``FSERR_NAME_*`` flags of a side record."""

    WHOLE = 1 << 0
    DELETED = 1 << 1


class SideRecord(NamedTuple):
    """``struct fserr_side``; ``names`` are the inode's own and its parents', NUL-terminated."""

    stack: tuple[int, ...]
    task_cgroup: int
    inode_cgroup: int
    type: int
    name_flags: int
    names: tuple[bytes, ...]


STACK = Struct(f"<{FSERR_STACK_MAX}Q")
# behind the stack: task_cgroup, inode_cgroup, type, name_flags
SIDE = Struct("<QQII")
NAMES = Struct(f"{FSERR_NAME_SIZE}s" * FSERR_NAMES_MAX)
SIDE_SIZE = STACK.size + SIDE.size + NAMES.size
