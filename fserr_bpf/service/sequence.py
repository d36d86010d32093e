"""The numbers of messages: never one twice in a boot, also after a restart or a crash.

A service keeps the last number in a file of its state folder, which is on a tmpfs and goes with
the boot. It is mapped, so that what was given out is there however the process ended.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from struct import Struct

from fserr_bpf.closing import Closing
from fserr_bpf.errors import UsageError
from fserr_bpf.model.event import EventId

BOOT_ID = "/proc/sys/kernel/random/boot_id"
FILE = "sequence"
_LAYOUT = Struct("<36s4xQQ")  # boot id, EventId.run, the last EventId.seq that was given out


class Sequence(Closing):
    """Gives out numbers. ``folder`` is where the last one is kept, None for nowhere.

    Raises UsageError when another process counts there, or the folder cannot be used.
    """

    def __init__(self, folder: str | None) -> None:
        with open(BOOT_ID) as file:
            self.boot_id = file.read().strip()
        self._fd = -1
        self._kept: mmap.mmap | None = None
        self.run, self.last = time.clock_gettime_ns(time.CLOCK_BOOTTIME), 0
        if folder is not None:
            self._resume(folder)

    def _resume(self, folder: str) -> None:
        path = os.path.join(folder, FILE)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", "name another state folder") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise UsageError(
                f"another fserr-bpf keeps its state in {folder}", "name another state folder"
            ) from None
        if os.fstat(self._fd).st_size != _LAYOUT.size:
            os.ftruncate(self._fd, _LAYOUT.size)
        self._kept = mmap.mmap(self._fd, _LAYOUT.size)
        boot_id, run, last = _LAYOUT.unpack(self._kept)
        if boot_id == self.boot_id.encode():
            self.run, self.last = run, last
        else:
            _LAYOUT.pack_into(self._kept, 0, self.boot_id.encode(), self.run, self.last)

    def next(self) -> EventId:
        """The number after the last."""
        self.last += 1
        if self._kept:  # before anybody sees it
            _LAYOUT.pack_into(self._kept, 0, self.boot_id.encode(), self.run, self.last)
        return EventId(self.boot_id, self.run, self.last)

    def close(self) -> None:
        """Let another process go on."""
        if self._kept:
            self._kept.close()
            os.close(self._fd)
            self._kept = None
