"""A scenario: which errors happen while both groups watch, as data and a function.

The table is ``fserr_bpf_compare.scenarios.SCENARIOS``. Each cause is real: no scenario writes
into the ring or the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.faults.fault import Expected, Fault, TriggerProcess
from fserr_bpf_compare.faults.scratch import Scratch


class Need(StrEnum):
    """What a scenario cannot do without; ``harness/needs.py`` asks kernel and machine."""

    DEVICE_MAPPER = "device-mapper"
    SIMULATE_FAIL = "simulate_fail"
    PROBES = "probes"  # the emulated events must come from probes, not the kernel's group
    BTRFS = "btrfs"
    F2FS = "f2fs"
    UNLINKED_LIST = "an XFS that looks at its lists of unlinked inodes"
    PIDFD = "FAN_REPORT_PIDFD"
    FD_ERROR = "FAN_REPORT_FD_ERROR"
    TARGET_FID = "FAN_REPORT_TARGET_FID"
    PATCHED = "FAN_REPORT_DETAILED_ERROR"  # our patch series, then


class Fixture(Protocol):
    """What a scenario is run with; `fserr_bpf_compare.harness.fixture` implements it.

    When the scenario has ended, both sides are read until they are empty and everything is
    taken down. A scenario itself reads only where the moment of the read matters.
    """

    version: tuple[int, int]

    def scratch(self, fstype: str, **options: Any) -> Scratch:
        """A new mounted file system, options as for `faults/scratch.py`; not yet watched."""

    def enter(self, context: AbstractContextManager[Any]) -> Any:
        """Enter a context that ends before the file systems made so far do."""

    def watch(
        self,
        *marked: Scratch,
        inodes: Sequence[str] = (),
        flags: int = 0,
        max_events: int | None = None,
    ) -> None:
        """Open both groups; at most once.

        With file system marks on ``marked`` and inode marks on the paths ``inodes``.
        ``flags`` are added to FAN_CLASS_NOTIF | FAN_REPORT_FID; ``max_events`` is the queue's
        length, None for the kernel's default.
        """

    def record(self, process: TriggerProcess) -> TriggerProcess:
        """Record a process that caused errors, for the report; returns it."""

    def outside(self, fs: Scratch) -> TriggerProcess:
        """Cause an ext4 error in a process outside of the scenario's pid namespace."""

    def settle(self) -> None:
        """Wait until both sides have queued every error that was caused so far."""

    def read(self, size: int = 65536) -> None:
        """Settle, then one read(2) of ``size`` bytes on either side.

        EINVAL and EAGAIN are recorded like bytes are.
        """


Version = tuple[int, int]
Expectation = Callable[[Stream, Version], frozenset[Expected]]


@dataclass(frozen=True)
class Scenario:
    """``name`` is unique and matches [a-z0-9_]+; ``area`` is ext4, xfs, generic,
    fanotify or proposed.

    ``expected(sent, version)`` are the errors (positive numbers) that a kernel of this
    version sends whose own stream is ``sent``: each must be in both streams, which may have
    more unless it is empty, when neither may have any. ``evidence`` is a regular expression
    for a message that the kernel must have logged meanwhile, ``{dev}`` standing for the
    names of the scratch devices: without it nothing has failed. "" where the kernel logs
    nothing.
    ``namespace`` runs it in a pid namespace of its own, in which both groups and their
    readers live.
    """

    name: str
    area: str
    summary: str
    run: Callable[[Fixture], None]
    expected: Expectation
    evidence: str = ""
    needs: frozenset[Need] = frozenset()
    namespace: bool = False


def always(*errors: Expected) -> Expectation:
    """Every kernel sends these."""
    return lambda _sent, _version: frozenset(errors)


def by_stream(
    native: Iterable[Expected] = (),
    fserror: Iterable[Expected] = (),
    proposed: Iterable[Expected] = (),
) -> Expectation:
    """What a kernel sends whose own stream is the one of this name."""
    errors = {
        Stream.NATIVE: frozenset(native),
        Stream.FSERROR: frozenset(fserror),
        Stream.PROPOSED: frozenset(proposed),
    }
    return lambda sent, _version: errors[sent]


def of_fault(fault: Fault) -> Expectation:
    """What the table of faults says."""
    since = fault.native_since
    return by_stream(
        native=fault.expected if since and since <= (5, 16) else (),
        fserror=fault.expected if since else (),
        proposed=fault.expected_of_patched(),
    )


def fault_scenario(fault: Fault, flags: int = 0) -> Scenario:
    """The scenario of one fault: prepare, watch in groups with ``flags``, cause."""

    def run(fixture: Fixture) -> None:
        fs = fixture.scratch(fault.fstype, mkfs_options=fault.mkfs_options)
        fault.damage(fs)
        fixture.watch(fs, flags=flags)
        fixture.record(fault.cause(fs))

    return Scenario(
        name=fault.name,
        area=fault.name.partition("_")[0],
        summary=fault.summary,
        run=run,
        expected=of_fault(fault),
        evidence=fault.log,
    )
