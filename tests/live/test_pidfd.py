"""A pidfd is that of the process that met the error, or there is none."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from fserr_bpf.tasks.pidfd import open_pidfd

TICKS = os.sysconf("SC_CLK_TCK")


def started_ns(pid: int) -> int:
    """Some nanosecond of the tick in which the process started, as /proc says it."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks * 1_000_000_000 // TICKS + 1


def test_living_process() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        for started in (0, started_ns(child.pid)):
            pidfd = open_pidfd(child.pid, started)
            said = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
            os.close(pidfd)
            found = re.search(r"^Pid:\t(\d+)$", said, re.MULTILINE)
            assert found is not None
            assert int(found[1]) == child.pid
        child.communicate()


def test_only_the_tick_of_its_start_is_this_process() -> None:
    """/proc shows no more of it; the field that the probe reads is the one that /proc shows."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    first = ticks * 1_000_000_000 // TICKS
    last = first + 1_000_000_000 // TICKS - 1
    for started in (first, last):
        os.close(open_pidfd(os.getpid(), started))
    for started in (first - 1, last + 1):
        with pytest.raises(ProcessLookupError):
            open_pidfd(os.getpid(), started)


def test_other_process_with_the_number() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProcessLookupError):
        open_pidfd(os.getpid(), started_ns(os.getpid()) - 10_000_000_000)
    assert len(os.listdir("/proc/self/fd")) == before


def test_process_that_has_gone() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    with pytest.raises(ProcessLookupError):
        open_pidfd(child.pid, 0)
