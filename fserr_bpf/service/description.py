"""What one run watches and where its messages go: the same for options and for a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from fserr_bpf.model.mark import Mark, SuperblockErrors
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.classes import MessageClass

QUEUE = 4096
"""Messages that wait for one output at most."""


class Full(StrEnum):
    """Which message gives way where an output's queue is full."""

    NEWEST = "newest"
    """The first error says most."""
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class Queueing:
    """What one output gets, how many messages of it wait, and which is lost then."""

    classes: frozenset[MessageClass] = frozenset(MessageClass)
    queue: int = QUEUE
    drop: Full = Full.NEWEST


@dataclass(frozen=True, slots=True)
class Journal:
    """journald, by its native protocol; ``socket`` is where it listens."""

    queueing: Queueing = Queueing()
    socket: str = "/run/systemd/journal/socket"

    @property
    def name(self) -> str:
        """For messages and metrics."""
        return "journal"


@dataclass(frozen=True, slots=True)
class File:
    """A file that is appended to; ``format`` is json or text."""

    path: str
    format: str = "json"
    queueing: Queueing = Queueing()

    @property
    def name(self) -> str:
        """For messages and metrics."""
        return f"file {self.path}"


@dataclass(frozen=True, slots=True)
class Hook:
    """A program that is run for a message. Times are in seconds."""

    command: str
    timeout: float = 30.0
    interval: float = 0.0
    user: str | None = None
    queueing: Queueing = Queueing()

    @property
    def name(self) -> str:
        """For messages and metrics."""
        return f"hook {self.command}"


@dataclass(frozen=True, slots=True)
class EventSocket:
    """A socket at ``path`` for readers of ``group``; None is the group of this process.

    The limits of the queue are those of each reader.
    """

    path: str
    group: str | None = None
    queueing: Queueing = Queueing()

    @property
    def name(self) -> str:
        """For messages and metrics."""
        return f"socket {self.path}"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """``textfile`` for node_exporter, ``listen`` (host, port) for scrapes; either may be None."""

    textfile: str | None = None
    listen: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What goes on besides the stream: outputs with queues of their own, and state for others.

    ``folder`` has the state file and the last number.
    """

    folder: str
    outputs: tuple[Journal | File | EventSocket | Hook, ...] = ()
    prometheus: Prometheus | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """One run. ``marks`` None: every file system that can be watched, also those mounted later.

    Without a ``service`` messages go to ``output``, None being standard output, in ``format``; its
    reader is waited for, and events merge meanwhile. ``file`` is the path it was read from, "" for
    options.
    """

    marks: tuple[Mark, ...] | None = None
    ignore: tuple[Mark, ...] = ()
    superblock: SuperblockErrors = SuperblockErrors.FILESYSTEM
    all_namespaces: bool = False
    cgroup: str | None = None
    container: str | None = None
    stream: Stream = Stream.PROPOSED
    detail: bool = False
    user: str | None = None
    format: str = "text"
    output: str | None = None
    service: Service | None = None
    file: str = ""

    def differs(self, other: Description) -> list[str]:
        """What cannot be changed while it runs: these need the rights of the start."""
        mine, others = (each.without_outputs() for each in (self, other))
        return [
            name
            for name in self.__dataclass_fields__
            if getattr(mine, name) != getattr(others, name)
        ] + (["hook"] if _hooks(self) != _hooks(other) else [])

    def without_outputs(self) -> Description:
        """The rest."""
        service = self.service and Service(self.service.folder)
        return replace(self, service=service)


def _hooks(description: Description) -> list[Hook]:
    outputs = description.service.outputs if description.service else ()
    return [each for each in outputs if isinstance(each, Hook)]
