"""What reached the monitor, before any group has judged it."""

from __future__ import annotations

from typing import NamedTuple

from fserr_bpf.codec.entry import Entry
from fserr_bpf.model.event import FsErrorEvent


class Observed(NamedTuple):
    """``errors`` that are alike, at least one.

    They are a run of ring entries or an event of the kernel's own group.

    ``entry`` is the first of the run; beside an ``event`` of the kernel's group it is the
    trace of it, None if there was none. ``time_ns`` is CLOCK_MONOTONIC, and
    ``realtime_offset_ns`` CLOCK_REALTIME minus that.
    """

    entry: Entry | None
    errors: int
    time_ns: int
    realtime_offset_ns: int
    event: FsErrorEvent | None = None
