"""Mirror of ``bpf/fserr.h``: the record between the probes and the monitor.

A test compares every offset with the DWARF of the compiled header.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

FSERR_VERSION = 1
FSERR_PROBE_MAX = 32


class Probe(IntEnum):
    """``FSERR_PROBE_*``: which probe saw the error; also the index of its counter."""

    EXT4_ERROR = 1
    EXT4_ERROR_INODE = 2
    EXT4_ERROR_FILE = 3
    EXT4_STD_ERROR = 4
    EXT4_ABORT = 5
    EXT4_TRACE = 6
    EXT4_SHUTDOWN = 7
    XFS_BUF_IOERROR = 8
    XFS_BUF_VERIFIER = 9
    XFS_INODE_VERIFIER = 10
    XFS_INODE_SICK = 11
    XFS_GROUP_SICK = 12
    XFS_FS_SICK = 13
    XFS_SHUTDOWN = 14
    WRITEBACK = 15
    BTRFS_ERROR = 16
    FSERROR = 17
    SB_DELETE = 18
    XFS_BUF_TRACE = 19


class Flag(IntFlag):
    """``FSERR_*`` flags of a record."""

    HAS_INODE = 1 << 0
    NO_TASK = 1 << 1
    BLOCK_DEVICE = 1 << 2
    IGET = 1 << 3
    SICK_CORE = 1 << 4


class Record(NamedTuple):
    """``struct fserr_record``, field by field, in the kernel's units."""

    version: int
    probe: int
    size: int
    flags: int
    time_ns: int
    dev: int
    magic: int
    sb_flags: int
    error: int
    ino: int
    generation: int
    line: int
    subvolume: int
    block: int
    length: int
    failaddr: int
    tgid: int
    tid: int
    task_start: int
    own_tgid: int
    own_tid: int
    pid_namespace: int
    pid_level: int
    comm: bytes
    function: bytes


FSERR_MARKS_MAX = 255
FSERR_MARKS_ALL = 0xFFFFFFFF
# struct fserr_marks: count, then the devices
MARKS = Struct(f"<I{FSERR_MARKS_MAX}I")

RECORD = Struct("<BBHIQIIIiQIIQQQQIIQIIII16s48s")
