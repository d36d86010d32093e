"""Errors by file system and by place, and the last events, in bounded memory.

Pure: events come in, immutable snapshots go out. Every error that came in is in exactly
one file system and one site, or in what was forgotten of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, Origin
from fserr_bpf.model.state import FilesystemState
from fserr_bpf.uapi.dev import Dev

KEPT_FILE_SYSTEMS = 1000  # with errors; those without are as many as are mounted
KEPT_SITES = 1000
KEPT_EVENTS = 200


class FileSystem(NamedTuple):
    """A superblock; ``dev`` is (major, minor)."""

    fsid: Fsid
    dev: Dev
    device: str
    mount_point: str
    fstype: str

    @property
    def key(self) -> Hashable:
        """It may be mounted somewhere else next time; clones of an ext4 share their fsid."""
        return self.fsid, self.dev

    @property
    def name(self) -> str:
        """What people call it."""
        return self.mount_point


class Site(NamedTuple):
    """A place in the kernel where one kind of error is found on one device.

    ``function`` and ``line`` as in an origin, else ``failaddr``, else ``source``; what the
    better one replaces is empty or 0. ``error`` has the sign of the stream.
    """

    dev: Dev
    device: str
    fstype: str
    error: int
    function: str
    line: int
    failaddr: int
    source: str

    @property
    def key(self) -> Hashable:
        """All of it."""
        return self

    @property
    def name(self) -> str:
        """The best that is known of the place."""
        if self.function:
            return f"{self.function}:{self.line}" if self.line else self.function
        return f"{self.failaddr:#x}" if self.failaddr else self.source


What = TypeVar("What", FileSystem, Site)


class Row(NamedTuple, Generic[What]):
    """``errors`` at ``what``; ``last_ns`` is when its newest event began (CLOCK_REALTIME)."""

    what: What
    errors: int
    last_ns: int


class Forgotten(NamedTuple):
    """Rows that made room for others, and the errors in them."""

    rows: int = 0
    errors: int = 0


class Order(StrEnum):
    """What comes first: the most errors, or the newest."""

    COUNT = "count"
    TIME = "time"


class Snapshot(NamedTuple):
    """Everything at one moment; ``events`` are newest first, rows in no order.

    File systems without errors are in ``file_systems`` while they are ``watched``. ``states``
    are known of those that are mounted.
    """

    file_systems: tuple[Row[FileSystem], ...]
    watched: frozenset[Hashable]
    sites: tuple[Row[Site], ...]
    events: tuple[Event, ...]
    errors: int
    forgotten_file_systems: Forgotten
    forgotten_sites: Forgotten
    forgotten_events: int
    states: Mapping[Dev, FilesystemState] = MappingProxyType({})


class _Rows(Generic[What]):
    """At most ``kept`` rows; the one whose errors are the oldest makes room."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._rows: dict[Hashable, Row[What]] = {}  # the last that had an error is the last
        self.forgotten = Forgotten()

    def add(self, what: What, errors: int, time_ns: int) -> None:
        before = self._rows.pop(what.key, None)
        if before is None and len(self._rows) == self._kept:
            oldest = self._rows.pop(next(iter(self._rows)))
            rows, gone = self.forgotten
            self.forgotten = Forgotten(rows + 1, gone + oldest.errors)
        if before is not None:
            errors += before.errors
            time_ns = max(time_ns, before.last_ns)
        self._rows[what.key] = Row(what, errors, time_ns)

    def get(self, key: Hashable) -> Row[What] | None:
        return self._rows.get(key)

    def all(self) -> Iterable[Row[What]]:
        return self._rows.values()


class Board:
    """What ``fserr-bpf top`` knows."""

    def __init__(self) -> None:
        self._watched: dict[Hashable, FileSystem] = {}
        self._file_systems = _Rows[FileSystem](KEPT_FILE_SYSTEMS)
        self._sites = _Rows[Site](KEPT_SITES)
        self._events = deque[Event](maxlen=KEPT_EVENTS)
        self._heard = 0
        self._errors = 0

    def watch(self, file_systems: Iterable[FileSystem]) -> None:
        """These, and no others, are watched now."""
        self._watched = {each.key: each for each in file_systems}

    def add(self, event: Event) -> None:
        """Count an event. Raises ValueError for an error without an origin."""
        self._heard += 1
        self._events.append(event)
        if not isinstance(event, FsErrorEvent):
            return
        origin = event.origin
        if origin is None:
            raise ValueError("without its origin an event has no place here")
        errors, time_ns = event.error_count, origin.time_ns
        self._errors += errors
        self._file_systems.add(file_system_of(event.fsid, origin), errors, time_ns)
        self._sites.add(site_of(event.error, origin), errors, time_ns)

    def snapshot(self) -> Snapshot:
        """All of it as it is now."""
        quiet = (
            Row(each, 0, 0)
            for key, each in self._watched.items()
            if self._file_systems.get(key) is None
        )
        return Snapshot(
            file_systems=(*self._file_systems.all(), *quiet),
            watched=frozenset(self._watched),
            sites=tuple(self._sites.all()),
            events=tuple(reversed(self._events)),
            errors=self._errors,
            forgotten_file_systems=self._file_systems.forgotten,
            forgotten_sites=self._sites.forgotten,
            forgotten_events=self._heard - len(self._events),
        )


def file_system_of(fsid: Fsid, origin: Origin) -> FileSystem:
    """Where an error is."""
    return FileSystem(fsid, origin.dev, origin.device, origin.mount_point, origin.fstype)


def site_of(error: int, origin: Origin) -> Site:
    """Which place reported an error."""
    failaddr = 0 if origin.function else origin.failaddr
    return Site(
        dev=origin.dev,
        device=origin.device,
        fstype=origin.fstype,
        error=error,
        function=origin.function,
        line=origin.line,
        failaddr=failaddr,
        source="" if origin.function or failaddr else origin.source,
    )


def ranked(rows: Iterable[Row[What]], order: Order) -> list[Row[What]]:
    """Rows by ``order``, equal ones by the other and then by name: no row jumps for nothing."""

    def rank(row: Row[What]) -> tuple[int, int, str, str]:
        count, time = -row.errors, -row.last_ns
        first, second = (count, time) if order is Order.COUNT else (time, count)
        return first, second, row.what.name, row.what.device

    return sorted(rows, key=rank)
