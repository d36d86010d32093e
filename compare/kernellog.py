"""The kernel's messages while something happens."""

from __future__ import annotations

import os

from fserr_bpf.closing import Closing


class KernelLog(Closing):
    """The kernel's messages from now on, from ``/dev/kmsg``."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._messages: list[str] = []

    def close(self) -> None:
        """Stop reading it."""
        os.close(self._fd)

    def messages(self) -> list[str]:
        """All messages so far; a line break inside one stays ``\\x0a`` as in kmsg."""
        while True:
            try:
                record = os.read(self._fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return self._messages
            except BrokenPipeError:  # the kernel has overwritten what was next
                self._messages.append("... messages were lost ...")
                continue
            self._messages.append(record.partition(";")[2].partition("\n")[0])
