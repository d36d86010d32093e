"""When to look into other mount namespaces, of whose changes the kernel tells nobody.

To be told of them, a descriptor would have to be kept that keeps their mounts. So the processes
are gone through once a minute, when the monitor is awake anyway, and soon after a change of our
own mount table: who makes a container often mounts something here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.mountnamespaces import mounts_elsewhere
from fserr_bpf.kernel.mounts import MountTable
from fserr_bpf.kernel.timer import Timer

_INTERVAL_NS = 60_000_000_000
_EARLY_NS = _INTERVAL_NS // 2  # who is awake anyway need not wake up again
_SOON_NS = 1_000_000_000  # thousands of processes take some milliseconds


class Elsewhere(Closing):
    """The mounts of other mount namespaces, as they were when they were looked at last."""

    def __init__(self, read: Callable[[], MountTable] = mounts_elsewhere) -> None:
        self._read = read
        self._timer = Timer()
        self._table: MountTable = ()
        self._looked_ns = self._due_ns = 0  # CLOCK_MONOTONIC
        self._look()

    def fileno(self) -> int:
        """Readable when it is time to look."""
        return self._timer.fileno()

    def is_due(self) -> bool:
        """Whether `together` will look."""
        return time.monotonic_ns() >= self._due_ns

    def together(self, own: MountTable, *, changed: bool) -> MountTable:
        """``own``, and what is mounted elsewhere only. ``changed``: ``own`` has."""
        if self.is_due():
            self._look()
        elif changed:
            soon = self._looked_ns + _SOON_NS
            self._due_ns = min(self._due_ns, soon)
            self._timer.set(soon)
        here = {mount.dev for mount in own}
        return (*own, *(mount for mount in self._table if mount.dev not in here))

    def _look(self) -> None:
        self._table = self._read()
        self._looked_ns = time.monotonic_ns()
        self._due_ns = self._looked_ns + _EARLY_NS
        self._timer.set(self._looked_ns + _INTERVAL_NS)

    def close(self) -> None:
        """Look no more."""
        self._timer.close()
