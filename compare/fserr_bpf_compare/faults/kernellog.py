"""The kernel's messages while something happens."""

from __future__ import annotations

import os
from typing import NamedTuple

from fserr_bpf.closing import Closing


class Message(NamedTuple):
    """``level`` is 0 (emergency) to 7 (debug), as in ``include/linux/kern_levels.h``."""

    level: int
    text: str


_LEVELS = 8  # in the low bits of the number that begins a record; the facility is above
_NOTICE = 5


class KernelLog(Closing):
    """The kernel's messages from now on, from ``/dev/kmsg``."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._messages: list[Message] = []

    def close(self) -> None:
        """Stop reading it."""
        os.close(self._fd)

    def messages(self) -> list[str]:
        """All messages so far; a line break inside one stays ``\\x0a`` as in kmsg."""
        return [message.text for message in self.leveled()]

    def leveled(self) -> list[Message]:
        """The same with their levels."""
        while True:
            try:
                record = os.read(self._fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return self._messages
            except BrokenPipeError:  # the kernel has overwritten what was next
                self._messages.append(Message(_NOTICE, "... messages were lost ..."))
                continue
            prefix, _, rest = record.partition(";")
            level = int(prefix.partition(",")[0]) % _LEVELS
            self._messages.append(Message(level, rest.partition("\n")[0]))
