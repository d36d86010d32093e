"""A descriptor that becomes readable at a time (``timerfd_create(2)``)."""

from __future__ import annotations

import os
import time
from struct import Struct

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.libc import check, libc

_ITIMERSPEC = Struct("@4l")  # struct itimerspec: it_interval, it_value
_TFD_TIMER_ABSTIME = 1
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # TFD_CLOEXEC, TFD_NONBLOCK


class Timer(Closing):
    """Off at first. Raises OSError as the system calls do."""

    def __init__(self) -> None:
        self._fd = check(libc.timerfd_create(time.CLOCK_MONOTONIC, _FLAGS))

    def fileno(self) -> int:
        """Readable from the time that was set on, until another is set."""
        return self._fd

    def set(self, time_ns: int) -> None:
        """Be due at ``time_ns`` of CLOCK_MONOTONIC; 0 is never."""
        value = _ITIMERSPEC.pack(0, 0, *divmod(time_ns, 1_000_000_000))
        check(libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, value, None))

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
