"""A descriptor of the process that met an error, if it is still that process."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1_000_000_000


def open_pidfd(pid: int, started_ns: int) -> int:
    """A pidfd of ``pid``, close-on-exec.

    ``started_ns`` is the process's ``task_struct.start_boottime`` (CLOCK_BOOTTIME), 0 if
    that is not known; ``do_task_stat()`` shows the same field. Raises ProcessLookupError if
    the process is gone, also when another one has its number; OSError as pidfd_open(2) fails.
    """
    pidfd = os.pidfd_open(pid)
    if started_ns and _started_ticks(pid) != started_ns * _TICKS // _NANOSECONDS:
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
