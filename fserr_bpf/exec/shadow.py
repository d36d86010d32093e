"""The real group behind an emulated one: the kernel's own answers, and ordinary events.

It is the client's own, which it made before it asked for errors.

Marks on superblocks ask for FAN_FS_ERROR too if the kernel knows it, so that they live as long
as the client's would; the kernel's own errors are read and dropped. Otherwise, and on inodes,
FAN_EVENT_ON_CHILD stands for it, which the kernel accepts and which has no effect there: such a
mark has an empty mask, ends with its object and does not keep a superblock busy.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from fserr_bpf.closing import Closing
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.exec.fanotifycalls import MarkCall
from fserr_bpf.exec.limits import require_room
from fserr_bpf.kernel import procfs, syscalls
from fserr_bpf.model.event import Event, FsErrorEvent, OverflowEvent
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.fanotify import (
    FAN_CLOEXEC,
    FAN_EVENT_INFO_TYPE_PIDFD,
    FAN_EVENT_ON_CHILD,
    FAN_FS_ERROR,
    FAN_NONBLOCK,
    FAN_OPEN_EXEC,
)

HOLD = FAN_EVENT_ON_CHILD
_READ_SIZE = 65536
_NOWHERE = -1
_CLOSING_SECONDS = 1.0  # they wait for a grace period, some ms on an idle machine
_closing: set[threading.Thread] = set()
# fanotify_show_fdinfo() and fanotify_fdinfo() in fs/notify/fdinfo.c
_FLAGS = re.compile(rb"^fanotify flags:(\w+) event-flags:", re.M)
_SUPERBLOCK = re.compile(rb"^fanotify sdev:(\w+) mflags:\w+ mask:(\w+) ignored_mask:(\w+)", re.M)


class SuperblockMark(NamedTuple):
    """``mask`` and ``ignored`` of a mark on a superblock, as the kernel has them."""

    mask: int
    ignored: int


class Shadow(Closing):
    """The group that is ``fd``, which is its own from now on.

    ``flags`` are those of its ``fanotify_init(2)``. ``knows``: this kernel knows FAN_FS_ERROR.
    ``inode_marks``: the client's group may have it on inodes, which no upstream kernel knows.
    """

    def __init__(self, fd: int, flags: int, *, knows: bool, inode_marks: bool) -> None:
        self._fd = fd
        self.flags = flags
        self._knows = knows
        self._inode_marks = inode_marks
        self._begun = False
        # the bit that stands for FAN_FS_ERROR in ignore masks
        self.ignored_bit = FAN_FS_ERROR if knows else FAN_OPEN_EXEC

    def fileno(self) -> int:
        """Readable while ordinary events wait."""
        return self._fd

    def judge(self, call: MarkCall) -> None:
        """OSError as ``fanotify_mark(2)`` refuses flags or mask, whatever the path.

        To take all marks away there needs no path: that is judged when it is done, by the
        client's rights.
        """
        emulated_inode = call.of_inode and self._inode_marks
        mask = call.mask
        if emulated_inode or not self._knows:
            mask = self.mask_of(call)
        try:
            if not call.flushes:
                syscalls.fanotify_mark(self._fd, call.flags, mask, None, _NOWHERE)
        except OSError as error:
            if error.errno != errno.EBADF:  # the last check of all: there is no such path
                raise
        if call.errors and not (call.whole or emulated_inode):
            # fanotify_events_supported(): kernels before 5.16 do not check it
            raise OSError(errno.EINVAL, "FAN_FS_ERROR is for file systems")

    def takes_errors(self, call: MarkCall) -> bool:
        """Whether the kernel takes FAN_FS_ERROR in such a mark itself."""
        return call.whole and self._knows

    def mask_of(self, call: MarkCall) -> int:
        """The client's mask, with what stands for FAN_FS_ERROR."""
        if not call.errors or self.takes_errors(call):
            return call.mask
        return call.mask & ~FAN_FS_ERROR | (self.ignored_bit if call.ignores else HOLD)

    def superblocks(self) -> dict[Dev, SuperblockMark]:
        """The marks on superblocks that are alive, by s_dev."""
        return superblocks_of(self._fd)

    def begin(self) -> None:
        """Only we read it from now on; a client that has a copy left finds it non-blocking."""
        os.set_blocking(self._fd, False)
        self._begun = True

    def read(self) -> Iterator[Event]:
        """The ordinary events that wait, none before `begin`.

        Without pidfds: those are numbers of ours, not the client's, and closed.
        """
        decoder = Decoder()
        while self._begun:
            try:
                data = os.read(self._fd, _READ_SIZE)
            except BlockingIOError:
                return
            yield from map(_without_pidfd, decoder.feed(data))

    def close(self) -> None:
        """Give the group up."""
        close_group(self._fd)


def superblocks_of(group: int) -> dict[Dev, SuperblockMark]:
    """The marks on superblocks of a group of ours (a descriptor), by s_dev."""
    found = _SUPERBLOCK.findall(procfs.read(f"self/fdinfo/{group}"))
    return {
        Dev.of(int(dev, 16)): SuperblockMark(int(mask, 16), int(ignored, 16))
        for dev, mask, ignored in found
    }


def close_group(group: int) -> None:
    """Close it in a thread: the kernel waits until its marks are freed."""

    def close() -> None:
        os.close(group)
        _closing.discard(threading.current_thread())

    thread = threading.Thread(target=close, daemon=True)
    _closing.add(thread)
    try:
        thread.start()
    except RuntimeError:  # no more threads: then we wait
        _closing.discard(thread)
        os.close(group)


def group_flags(fd: int) -> int | None:
    """The flags of ``fanotify_init(2)`` that a group of ours was made with; None for another file.

    ``fanotify_show_fdinfo()``. Raises OSError.
    """
    found = _FLAGS.search(procfs.read(f"self/fdinfo/{fd}"))
    return int(found[1], 16) if found else None


def make_group(flags: int, event_flags: int) -> int:
    """A group of ours as fanotify_init(2) makes it; those that are being closed do not count.

    Raises OSError; EMFILE as `require_room`.
    """
    flags |= FAN_CLOEXEC | FAN_NONBLOCK
    try:
        fd = syscalls.fanotify_init(flags, event_flags)
    except OSError as error:
        closing = list(_closing)
        if error.errno != errno.EMFILE or not closing:
            raise
        until = time.monotonic() + _CLOSING_SECONDS
        for thread in closing:
            thread.join(max(0, until - time.monotonic()))
        fd = syscalls.fanotify_init(flags, event_flags)
    try:
        require_room(fd)
    except OSError:
        close_group(fd)
        raise
    return fd


def _without_pidfd(event: Event) -> Event:
    if isinstance(event, FsErrorEvent):
        _close_pidfd(event.pidfd)
        return event
    if isinstance(event, OverflowEvent):
        return event
    extra = []
    for record in event.extra:
        if record.info_type == FAN_EVENT_INFO_TYPE_PIDFD:
            _close_pidfd(int.from_bytes(record.data[:4], "little", signed=True))
        else:
            extra.append(record)
    return event._replace(extra=tuple(extra))


def _close_pidfd(pidfd: int | None) -> None:
    if pidfd is not None and pidfd >= 0:
        os.close(pidfd)
