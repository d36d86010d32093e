"""Mirror of ``bpf/fserr.h``: the record between the probes and the monitor.

A test compares every offset with the DWARF of the compiled header.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

FSERR_VERSION = 1
FSERR_PROBE_MAX = 64


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
    XFS_CORRUPTION = 20
    XFS_BUF_CORRUPT = 21
    XFS_END = 22
    EXT4_GROUP_LOCKED = 23
    EXT4_END = 24
    BTRFS_DEVICE = 25
    BTRFS_END = 26
    F2FS_ERROR = 27
    F2FS_END = 28
    FAT_ERROR = 29
    NILFS2_ERROR = 31
    JFS_ERROR = 32
    CANARY = 33
    OCFS2_ERROR = 34


class Flag(IntFlag):
    """``FSERR_*`` flags of a record."""

    HAS_INODE = 1 << 0
    IN_INTERRUPT = 1 << 1
    BLOCK_DEVICE = 1 << 2
    IGET = 1 << 3
    SICK_CORE = 1 << 4
    REQUESTED = 1 << 5
    METADATA_IO = 1 << 6
    LOG_IO = 1 << 7
    CORRUPTION = 1 << 8
    DEVICE_REMOVED = 1 << 9


def attachment_of(flags: int) -> int:
    """Which of its attachments a probe that has several saw the error at."""
    return flags >> 12 & 3


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
