"""Numbers and layouts of the proposal, which no upstream header has.

`docs/proposed-stream.md` defines them for this package and for the patch series in
``kernel-patch/``; they are from ranges that ``include/uapi/linux/fanotify.h`` leaves free.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

# fanotify_init(2): flags
FAN_REPORT_DETAILED_ERROR = 0x00008000
FAN_REPORT_ERROR_LOCATION = 0x00010000
PROPOSED_FLAGS = FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION

FAN_EVENT_INFO_TYPE_DETAILED_ERROR = 8
FAN_EVENT_INFO_TYPE_ERROR_LOCATION = 9

# behind the header: kind, pos, length, block, failaddr
DETAILED_ERROR = Struct("<IQQQQ")
# behind the header: line; the NUL-terminated function follows
ERROR_LOCATION = Struct("<I")
MAX_FUNCTION = 47
"""Longest function in a location record, in bytes without the NUL."""


class ErrorKind(IntEnum):
    """``kind`` of a detail record: what failed."""

    METADATA = 1
    JOURNAL = 2
    SHUTDOWN = 3
    WRITEBACK = 4
    READ = 5
    DIRECT_READ = 6
    DIRECT_WRITE = 7
    DATA_LOST = 8
    SHUTDOWN_REQUESTED = 9
    SHUTDOWN_METADATA_IO = 10
    SHUTDOWN_LOG_IO = 11
    SHUTDOWN_CORRUPTION = 12
    SHUTDOWN_DEVICE_REMOVED = 13
