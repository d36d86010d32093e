"""The real group behind an emulated one: the kernel's own answers, and ordinary events.

Marks on superblocks ask for FAN_FS_ERROR too if the kernel knows it, so that they live as long
as the client's would; the kernel's own errors are read and dropped. Otherwise, and on inodes,
FAN_EVENT_ON_CHILD stands for it, which the kernel takes and which means nothing there: such a
mark has an empty mask, lives and dies with its object and does not keep a superblock busy.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from typing import NamedTuple

from fserr_bpf.closing import Closing
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.live import syscalls
from fserr_bpf.model.event import Event
from fserr_bpf.uapi.fanotify import (
    FAN_CLOEXEC,
    FAN_EVENT_ON_CHILD,
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_FLUSH,
    FAN_NONBLOCK,
    FAN_OPEN_EXEC,
    FAN_UNLIMITED_QUEUE,
)

HOLD = FAN_EVENT_ON_CHILD
_READ_SIZE = 65536
_AT_FDCWD = -100
_NOWHERE = -1
# fanotify_fdinfo() in fs/notify/fdinfo.c
_SUPERBLOCK = re.compile(rb"^fanotify sdev:(\w+) mflags:\w+ mask:(\w+) ignored_mask:(\w+)", re.M)


class SuperblockMark(NamedTuple):
    """``mask`` and ``ignored`` of a mark on a superblock, as the kernel has them."""

    mask: int
    ignored: int


class Shadow(Closing):
    """A group made with the client's flags; OSError as ``fanotify_init(2)`` fails.

    ``knows``: this kernel knows FAN_FS_ERROR. The queue has no limit: that of the emulated
    group is the one that counts.
    """

    def __init__(self, flags: int, event_flags: int, *, knows: bool) -> None:
        flags |= FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE
        self._fd = syscalls.fanotify_init(flags, event_flags)
        # the bit that stands for FAN_FS_ERROR in ignore masks
        self.ignored_bit = FAN_FS_ERROR if knows else FAN_OPEN_EXEC

    def fileno(self) -> int:
        """Readable while ordinary events wait."""
        return self._fd

    def judge(self, flags: int, mask: int) -> None:
        """OSError as ``fanotify_mark(2)`` refuses ``flags`` or ``mask``, whatever the path."""
        try:
            syscalls.fanotify_mark(self._fd, flags, mask, None, _NOWHERE)
        except OSError as error:
            if error.errno != errno.EBADF:  # the last check of all: there is no such path
                raise

    def mark(self, flags: int, mask: int, dirfd: int, path: bytes | None) -> None:
        """``fanotify_mark(2)``; its OSError."""
        syscalls.fanotify_mark(self._fd, flags, mask, path, dirfd)

    def superblocks(self) -> dict[int, SuperblockMark]:
        """The marks on superblocks that are alive, by s_dev."""
        with open(f"/proc/self/fdinfo/{self._fd}", "rb") as file:
            found = _SUPERBLOCK.findall(file.read())
        return {
            int(dev, 16): SuperblockMark(int(mask, 16), int(ignored, 16))
            for dev, mask, ignored in found
        }

    def read(self) -> Iterator[Event]:
        """The ordinary events that wait."""
        decoder = Decoder()
        while True:
            try:
                data = os.read(self._fd, _READ_SIZE)
            except BlockingIOError:
                return
            yield from decoder.feed(data)

    def close(self) -> None:
        """Give the group up, in a thread: the kernel waits until its marks are freed."""
        threading.Thread(target=os.close, args=(self._fd,), daemon=True).start()


class Locator(Closing):
    """Tells which superblock a path is on, by a mark of a moment: the kernel says s_dev.

    Neither stat(2) nor the mount table can: btrfs has other numbers in the first, and the
    second may be that of a namespace where the mount is not.
    """

    def __init__(self, flags: int) -> None:
        self._shadow = Shadow(flags, 0, knows=False)

    def mark(self, lookup: int, dirfd: int, path: bytes | None) -> None:
        """Go to the superblock of ``path``; may be called in a forked child.

        ``lookup`` is FAN_MARK_DONT_FOLLOW, FAN_MARK_ONLYDIR or 0.
        """
        self._shadow.mark(FAN_MARK_ADD | FAN_MARK_FILESYSTEM | lookup, HOLD, dirfd, path)

    def dev(self) -> int | None:
        """s_dev of where ``mark`` went; None if the file system has gone meanwhile."""
        found = self._shadow.superblocks()
        self._shadow.mark(FAN_MARK_FLUSH | FAN_MARK_FILESYSTEM, 0, _AT_FDCWD, None)
        return next(iter(found), None)

    def close(self) -> None:
        """Give the group up."""
        self._shadow.close()
