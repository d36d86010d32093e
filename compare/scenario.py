"""A scenario: a story that both sides hear, as data with the function that plays it.

The table is ``compare.scenarios.SCENARIOS``. Each cause is real: no scenario writes
into the ring or the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from compare.faults import Caused, Expected
from compare.scratch import Scratch
from fserr_bpf.model.stream import Stream


class Need(StrEnum):
    """What a scenario cannot do without; ``compare.needs`` asks kernel and machine."""

    DEVICE_MAPPER = "device-mapper"
    PROBES = "probes"  # the emulated events must come from probes, not the kernel's group
    BTRFS = "btrfs"
    PIDFD = "FAN_REPORT_PIDFD"
    FD_ERROR = "FAN_REPORT_FD_ERROR"
    TARGET_FID = "FAN_REPORT_TARGET_FID"
    DETAILED_ERROR = "FAN_REPORT_DETAILED_ERROR"
    INODE_MARKS = "FAN_FS_ERROR in an inode mark"


class Stage(Protocol):
    """What a scenario plays on; `compare.stage` has the real one.

    At the end of the play the stage reads both sides until they are empty and takes
    everything down; a play only reads where the moment of the read matters.
    """

    stream: Stream
    version: tuple[int, int]

    def scratch(self, fstype: str, **options: Any) -> Scratch:
        """A new mounted file system, options as for `compare.scratch.scratch`; not yet watched."""

    def enter(self, context: AbstractContextManager[Any]) -> Any:
        """Enter a context that ends before the file systems do."""

    def watch(
        self,
        *marked: Scratch,
        inodes: Sequence[str] = (),
        flags: int = 0,
        max_events: int | None = None,
    ) -> None:
        """Open both groups; at most once.

        ``marked`` get file system marks, the paths in ``inodes`` inode marks. ``flags``
        are added to FAN_CLASS_NOTIF | FAN_REPORT_FID; ``max_events`` is the queue's
        length, None for the kernel's default.
        """

    def caused(self, caused: Caused) -> Caused:
        """Note what caused errors, for the report; returns it."""

    def settle(self) -> None:
        """Wait until both sides have queued every error that was caused so far."""

    def read(self, size: int = 65536) -> None:
        """Settle, then one read(2) of ``size`` bytes on either side; EINVAL and EAGAIN are noted."""


@dataclass(frozen=True)
class Scenario:
    """``name`` is unique and matches [a-z0-9_]+; ``area`` is ext4, xfs, generic or fanotify.

    ``expected(stream, version)`` are the errors (positive numbers) of which each must
    be in the emulated stream, and in the real one if the kernel sends that stream; the
    streams may have more unless it is empty, when nothing may be sent. ``native`` on a
    kernel means what that kernel sends. ``namespace`` plays it in a pid namespace of
    its own, in which both groups and their readers live.
    """

    name: str
    area: str
    summary: str
    play: Callable[[Stage], None]
    expected: Callable[[Stream, tuple[int, int]], frozenset[Expected]]
    needs: frozenset[Need] = frozenset()
    namespace: bool = False
