"""The state of a file system: what the kernel knows of it now, also of what happened before."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fserr_bpf.model.event import EventId
from fserr_bpf.uapi.dev import Dev


class Condition(StrEnum):
    """How well a file system is, the worst last."""

    OK = "ok"
    READ_ONLY = "read-only"
    """As somebody asked for."""
    ERRORS = "errors"
    """Errors on record; it is writable still, or as it was asked for."""
    UNKNOWN = "unknown"
    """It cannot be asked, or does not answer: a device that hangs, for example."""
    READ_ONLY_AFTER_ERROR = "read-only after error"
    SHUTDOWN = "shut down"
    """Whoever uses it gets EIO until it is unmounted."""
    GONE = "gone"
    """Its device has been removed, and it is mounted still."""


class RecordedError(NamedTuple):
    """An error that ext4 keeps in its superblock.

    ``time`` is in seconds since 1970 UTC, ``error`` a positive errno; each 0 or "" where the
    superblock has nothing. Source: ``fs/ext4/sysfs.c``.
    """

    time: int
    function: str
    line: int
    error: int
    ino: int
    block: int


class DeviceErrors(NamedTuple):
    """What btrfs counts of one device (``enum btrfs_dev_stat_values``); kept on disk."""

    device: str
    write: int
    read: int
    flush: int
    corruption: int
    generation: int

    @property
    def total(self) -> int:
        """All five."""
        return self.write + self.read + self.flush + self.corruption + self.generation


class FilesystemState(NamedTuple):
    """A mounted superblock and how it is.

    ``device`` is the kernel's name of its block device, ``mapper`` the name that device-mapper
    has for it, or "". ``below`` are the devices under it. ``mount_points`` are all in our
    mount namespace; ``hidden``: none of them leads to it. ``sick`` are the parts that XFS
    knows to be damaged. ``reason`` says in words what the condition is known by, "" if it is
    ok.
    """

    dev: Dev
    device: str
    mapper: str
    below: tuple[str, ...]
    fstype: str
    mount_points: tuple[str, ...]
    hidden: bool
    condition: Condition
    errors: int = 0
    first: RecordedError | None = None
    last: RecordedError | None = None
    devices: tuple[DeviceErrors, ...] = ()
    sick: tuple[str, ...] = ()
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Nothing is wrong: it may be read-only if somebody asked for that."""
        return self.condition in (Condition.OK, Condition.READ_ONLY)


class StateChange(NamedTuple):
    """The first that is known of a file system's state, or another one than before.

    ``time_ns`` is CLOCK_REALTIME. ``before`` is the condition until then, None at first.
    ``not_seen`` is what no event will tell of it.
    """

    time_ns: int
    state: FilesystemState
    before: Condition | None = None
    not_seen: tuple[str, ...] = ()
    id: EventId | None = None
