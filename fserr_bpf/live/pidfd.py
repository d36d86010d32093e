"""A descriptor of the process that met an error, if it is still that process."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def open_pidfd(pid: int, started_ns: int) -> int:
    """A pidfd of ``pid``, close-on-exec.

    ``started_ns`` is the process's ``task_struct.start_time`` (CLOCK_MONOTONIC), 0 if
    that is not known. Raises ProcessLookupError if the process is gone, also when
    another one has its number; OSError as pidfd_open(2) fails.
    """
    pidfd = os.pidfd_open(pid)
    if started_ns and _started_ticks(pid) != _in_ticks(started_ns):
        os.close(pidfd)
        raise ProcessLookupError
    return pidfd


def _started_ticks(pid: int) -> int | None:
    """Field 22 of ``/proc/PID/stat``; None if the process has gone meanwhile."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def _in_ticks(started_ns: int) -> int:
    """As /proc says it: CLOCK_BOOTTIME, which goes on while the machine sleeps."""
    asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    # both clocks were read one after the other: less than a microsecond is no sleep
    asleep = 0 if asleep < 1_000_000 else asleep
    return (started_ns + asleep) * _TICKS // 1_000_000_000
