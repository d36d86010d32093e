"""Numbers of ``include/uapi/linux/fcntl.h``, as far as they are used; a test compares them."""

from __future__ import annotations

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
