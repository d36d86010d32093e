"""How long to wait: deadlines are meant for an idle machine, and are longer on a busy one."""

from __future__ import annotations

import subprocess
import sys
import time

# a process of Python that counts to a million, on an idle machine of 2026
_WORK = [sys.executable, "-I", "-S", "-c", "for _ in range(1_000_000): pass"]
_NOMINAL = 0.05  # seconds


def slowness() -> float:
    """How many times longer than on an idle machine work takes now, 1 to 20.

    An emulated machine is as slow as a very busy one.
    """
    begin = time.monotonic()
    subprocess.run(_WORK, check=True)
    return min(max(1.0, (time.monotonic() - begin) / _NOMINAL), 20.0)


AT_START = slowness()
"""Measured once, for timeouts that cannot be prolonged."""


class Deadline:
    """``seconds`` of an idle machine from now on; the load is asked again before it expires."""

    def __init__(self, seconds: float) -> None:
        self._begin = time.monotonic()
        self._nominal = seconds
        self.seconds = seconds * AT_START

    def has_expired(self) -> bool:
        """Whether even a machine that is as busy as this one now should have done it."""
        if time.monotonic() <= self._begin + self.seconds:
            return False
        self.seconds = max(self.seconds, self._nominal * slowness())
        return time.monotonic() > self._begin + self.seconds
