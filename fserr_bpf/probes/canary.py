"""Whether kprobes fire: a call of our own that one of them counts, and the kernel's switches.

Two switches make every kprobe silent without a word: ``kernel.ftrace_enabled`` (those at the
entry of a function stand on ftrace) and ``kprobes/enabled`` in debugfs (kernel/kprobes.c).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Protocol

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.inotify import Inotify
from fserr_bpf.kernel.libc import syscall
from fserr_bpf.uapi.record import Probe

_SYS_IOPRIO_GET = 252  # x86-64
_IOPRIO_WHO_PROCESS = 1  # include/uapi/linux/ioprio.h
_SWITCHES = {
    "kernel.ftrace_enabled": "/proc/sys/kernel/ftrace_enabled",
    "/sys/kernel/debug/kprobes/enabled": "/sys/kernel/debug/kprobes/enabled",
}


class Counters(Protocol):
    """The ring's counters."""

    def lost(self) -> Sequence[int]:
        """By probe; that of the canary counts its runs."""


class Canary(Closing):
    """The switches stay open, because not every user may open them later."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._switches: dict[str, int] = {}
        for name, path in _SWITCHES.items():
            with contextlib.suppress(OSError):  # debugfs may not be mounted
                self._switches[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._inotify = Inotify(*(_SWITCHES[name] for name in self._switches))
        except OSError:
            self._close_switches()
            raise

    def fileno(self) -> int:
        """Readable when somebody has written to a switch, until ``was_switched()``."""
        return self._inotify.fileno()

    def was_switched(self) -> bool:
        """Whether somebody has written to a switch since the last call."""
        return self._inotify.take()

    def sings(self) -> bool:
        """Make the call; whether the probe has counted it. Raises OSError if it is refused."""
        before = self._counters.lost()[Probe.CANARY]
        syscall(_SYS_IOPRIO_GET, _IOPRIO_WHO_PROCESS, 0)
        return self._counters.lost()[Probe.CANARY] > before

    def switched_off(self) -> list[str]:
        """The names of the switches that are off."""
        return [name for name, fd in self._switches.items() if os.pread(fd, 8, 0).strip() == b"0"]

    def close(self) -> None:
        """Give the descriptors back."""
        self._inotify.close()
        self._close_switches()

    def _close_switches(self) -> None:
        for fd in self._switches.values():
            os.close(fd)
