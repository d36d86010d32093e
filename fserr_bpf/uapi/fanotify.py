"""Layouts and numbers of ``include/uapi/linux/fanotify.h``, as far as they are used.

The layouts are little endian and unpadded. All info records begin with the fields
of ``INFO_HEADER``, which the record layouts repeat. A test compares every offset
and number with the C header.
"""

from __future__ import annotations

from struct import Struct

# fanotify_init(2): flags
FAN_CLOEXEC = 0x00000001
FAN_NONBLOCK = 0x00000002
FAN_CLASS_NOTIF = 0x00000000
FAN_CLASS_CONTENT = 0x00000004
FAN_CLASS_PRE_CONTENT = 0x00000008
FAN_UNLIMITED_QUEUE = 0x00000010
FAN_UNLIMITED_MARKS = 0x00000020
FAN_ENABLE_AUDIT = 0x00000040
FAN_REPORT_PIDFD = 0x00000080
FAN_REPORT_TID = 0x00000100
FAN_REPORT_FID = 0x00000200
FAN_REPORT_DIR_FID = 0x00000400
FAN_REPORT_NAME = 0x00000800
FAN_REPORT_TARGET_FID = 0x00001000
FAN_REPORT_FD_ERROR = 0x00002000  # since 6.13, in 6.12 by backport

# fanotify_mark(2): flags
FAN_MARK_ADD = 0x00000001
FAN_MARK_REMOVE = 0x00000002
FAN_MARK_DONT_FOLLOW = 0x00000004
FAN_MARK_ONLYDIR = 0x00000008
FAN_MARK_IGNORED_MASK = 0x00000020
FAN_MARK_IGNORED_SURV_MODIFY = 0x00000040
FAN_MARK_FLUSH = 0x00000080
FAN_MARK_EVICTABLE = 0x00000200  # since 5.19
FAN_MARK_IGNORE = 0x00000400  # since 6.0
FAN_MARK_INODE = 0x00000000
FAN_MARK_MOUNT = 0x00000010
FAN_MARK_FILESYSTEM = 0x00000100

# event masks
FAN_DELETE_SELF = 0x00000400
FAN_OPEN_EXEC = 0x00001000
FAN_Q_OVERFLOW = 0x00004000
FAN_FS_ERROR = 0x00008000
FAN_OPEN_PERM = 0x00010000
FAN_ACCESS_PERM = 0x00020000
FAN_OPEN_EXEC_PERM = 0x00040000
FAN_EVENT_ON_CHILD = 0x08000000
FAN_RENAME = 0x10000000
FAN_ONDIR = 0x40000000

# struct fanotify_event_metadata: event_len, vers, reserved, metadata_len, mask, fd, pid
METADATA = Struct("<IBBHQii")
FANOTIFY_METADATA_VERSION = 3
FAN_NOFD = -1

# struct fanotify_event_info_header: info_type, pad, len
INFO_HEADER = Struct("<BBH")
FAN_EVENT_INFO_TYPE_FID = 1
FAN_EVENT_INFO_TYPE_PIDFD = 4
FAN_EVENT_INFO_TYPE_ERROR = 5

# struct fanotify_event_info_fid: header, fsid.val[0], fsid.val[1]; a struct file_handle follows
INFO_FID = Struct("<BBHII")

# struct fanotify_event_info_pidfd: header, pidfd
INFO_PIDFD = Struct("<BBHi")
FAN_NOPIDFD = -1
FAN_EPIDFD = -2

# struct fanotify_event_info_error: header, error, error_count
INFO_ERROR = Struct("<BBHiI")
