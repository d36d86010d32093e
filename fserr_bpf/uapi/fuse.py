"""Layouts and numbers of ``include/uapi/linux/fuse.h``, as far as they are used.

The layouts are little endian and unpadded. A test compares every offset and number with
the C header.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

FUSE_KERNEL_VERSION = 7
FUSE_ROOT_ID = 1
FUSE_MIN_READ_BUFFER = 8192


class Opcode(IntEnum):
    """``FUSE_*`` requests."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    BATCH_FORGET = 42


# struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, padding
IN_HEADER = Struct("<IIQQIIII")
# struct fuse_out_header: len, error, unique
OUT_HEADER = Struct("<IiQ")

# struct fuse_init_in up to 7.35: major, minor, max_readahead, flags
INIT_IN = Struct("<IIII")
# struct fuse_init_out up to 7.35: major, minor, max_readahead, flags, max_background,
# congestion_threshold, max_write, time_gran, max_pages, map_alignment, unused[8]
INIT_OUT = Struct("<IIIIHHIIHH32s")
FUSE_MAX_PAGES = 1 << 22

# struct fuse_attr: ino, size, blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec,
# mode, nlink, uid, gid, rdev, blksize, flags
ATTR = Struct("<QQQQQQIIIIIIIIII")
# struct fuse_entry_out up to attr: nodeid, generation, entry_valid, attr_valid,
# entry_valid_nsec, attr_valid_nsec
ENTRY_OUT = Struct("<QQQQII")
# struct fuse_attr_out up to attr: attr_valid, attr_valid_nsec, dummy
ATTR_OUT = Struct("<QII")

# struct fuse_statfs_out: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize,
# padding, spare[6]
STATFS_OUT = Struct("<QQQQQIIII24s")

# struct fuse_open_out: fh, open_flags, padding (backing_id since 7.40)
OPEN_OUT = Struct("<QII")
FOPEN_DIRECT_IO = 1 << 0
FOPEN_NONSEEKABLE = 1 << 2
FOPEN_STREAM = 1 << 4
FOPEN_NOFLUSH = 1 << 5

# struct fuse_read_in: fh, offset, size, read_flags, lock_owner, flags, padding
READ_IN = Struct("<QQIIQII")
# struct fuse_interrupt_in: unique
INTERRUPT_IN = Struct("<Q")
# struct fuse_poll_in: fh, kh, flags, events
POLL_IN = Struct("<QQII")
FUSE_POLL_SCHEDULE_NOTIFY = 1 << 0
# struct fuse_poll_out: revents, padding
POLL_OUT = Struct("<II")

# unique 0 and this as error: struct fuse_notify_poll_wakeup_out: kh
FUSE_NOTIFY_POLL = 1
NOTIFY_POLL_WAKEUP_OUT = Struct("<Q")
