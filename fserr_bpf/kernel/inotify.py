"""Files of the kernel that somebody writes to (``inotify(7)``)."""

from __future__ import annotations

import contextlib
import os

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.libc import check, libc

_IN_MODIFY = 0x2  # include/uapi/linux/inotify.h
_BUFFER = 4096


class Inotify(Closing):
    """``fileno()`` is readable once a file of these was written to, until ``take()``.

    The files are to be held open: an entry of /proc/sys that nobody uses is made anew at its
    next use. Raises OSError as the system calls do.
    """

    def __init__(self, *paths: str) -> None:
        self._fd = check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            for path in paths:
                check(libc.inotify_add_watch(self._fd, path.encode(), _IN_MODIFY), path)
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._fd

    def take(self) -> bool:
        """Whether one was written to since the last call."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._fd, _BUFFER))
        return False

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
