"""Where ``top`` gets its events from: a monitor of its own, or the socket of a service."""

from __future__ import annotations

import os
import select
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError, UsageError
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.kernel.syscalls import statfs
from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, Lost
from fserr_bpf.model.state import FilesystemState, StateChange
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs.text import lost_line
from fserr_bpf.outputs.unpack import MsgpackDecoder
from fserr_bpf.service.statefile import running_service
from fserr_bpf.top.model import FileSystem
from fserr_bpf.uapi.dev import Dev

_READ_SIZE = 1 << 16


class Feed(Protocol):
    """Events, and what there is to know beside them."""

    @property
    def stream(self) -> str:
        """What is an event."""

    def read_events(self) -> Iterator[Event]:
        """What has come by now, without waiting. Raises FserrError at the end."""

    def news(self) -> list[str]:
        """Messages since the last call."""

    def changes(self) -> list[StateChange]:
        """Changes of states since the last call."""

    def states(self) -> Iterable[FilesystemState]:
        """All that are known now."""

    def file_systems(self) -> Iterable[FileSystem]:
        """What is watched now."""

    def complete(self, event: FsErrorEvent) -> FsErrorEvent:
        """The event with what has been found of it since."""

    def blind(self) -> Mapping[str, list[str]]:
        """What is not seen, by the reason."""

    def lost(self) -> dict[str, int]:
        """Errors that were seen but are in no event, by the reason."""

    def missed(self) -> dict[str, int]:
        """Runs of a probe that the kernel skipped, where there were any."""

    def wait(self, timeout: float | None, others: Mapping[int, int]) -> frozenset[int]:
        """Block until there is more, ``others`` are ready, or ``timeout`` seconds have passed."""


class MonitorFeed:
    """Of a monitor of our own."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.stream = str(monitor.stream)
        self.read_events = monitor.read_events
        self.news = monitor.news
        self.blind = monitor.blind
        self.wait = monitor.wait

    def changes(self) -> list[StateChange]:
        """Of its states."""
        return self._monitor.states.changes() if self._monitor.states else []

    def states(self) -> Iterable[FilesystemState]:
        """Of what it watches."""
        return self._monitor.states.states() if self._monitor.states else ()

    def file_systems(self) -> Iterable[FileSystem]:
        """Those that are marked."""
        marks = self._monitor.marks
        return (FileSystem(m.fsid, m.dev, m.device, m.mount_point, m.fstype) for m in marks)

    def complete(self, event: FsErrorEvent) -> FsErrorEvent:
        """With its path, if it has been found."""
        return self._monitor.names.complete(event) if self._monitor.names else event

    def lost(self) -> dict[str, int]:
        """What ring and queue had no room for."""
        dropped = self._monitor.statistics().dropped
        return {why: dropped[why] for why in (DropReason.RING_FULL, DropReason.QUEUE_FULL)}

    def missed(self) -> dict[str, int]:
        """Since the monitor began."""
        return {name: n for name, n in self._monitor.statistics().missed.items() if n}


class AttachedFeed(Closing):
    """Of a service, by its socket at ``path``; what the service says of itself is beside it.

    Raises UsageError where nobody listens or we may not read.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
            self._socket.sendall(b"msgpack\n")
        except OSError as error:
            self._socket.close()
            raise UsageError(
                f"{path}: {error.strerror}", "give [socket] to a service that runs, or be its group"
            ) from error
        self._socket.setblocking(False)
        self._folder = os.path.dirname(path)
        self._decoder = MsgpackDecoder()
        self._states: dict[Dev, FilesystemState] = {}
        self._changes: list[StateChange] = []
        self._news: list[str] = []
        self._lost = Counter[str]()
        self.stream = str(self._about().get("stream", "of the service"))

    def _about(self) -> Mapping[str, Any]:
        service = running_service(self._folder)
        return service.about if service else {}

    def read_events(self) -> Iterator[Event]:
        """Raises FserrError when the service has ended."""
        while True:
            try:
                data = self._socket.recv(_READ_SIZE)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                raise FserrError("the service has ended", "start it again, then top --attach")
            for message in self._decoder.feed(data):
                if isinstance(message, StateChange):
                    self._states[message.state.dev] = message.state
                    self._changes.append(message)
                elif isinstance(message, Lost):
                    self._lost["this reader was too slow"] += message.errors
                    self._news.append(lost_line(message))
                else:
                    yield message

    def news(self) -> list[str]:
        """What this reader has lost."""
        news, self._news = self._news, []
        return news

    def changes(self) -> list[StateChange]:
        """As the service has told them; at first all."""
        changes, self._changes = self._changes, []
        return changes

    def states(self) -> Iterable[FilesystemState]:
        """The last that were told."""
        return self._states.values()

    def file_systems(self) -> Iterable[FileSystem]:
        """Those that have a state, and a mount point of ours."""
        for state in self._states.values():
            if state.mount_points and not state.hidden:
                try:
                    fsid = Fsid(*statfs(state.mount_points[0]).f_fsid)
                except OSError:
                    continue
                yield FileSystem(fsid, state.dev, state.device, state.mount_points[0], state.fstype)

    def complete(self, event: FsErrorEvent) -> FsErrorEvent:
        """Nothing is found later."""
        return event

    def blind(self) -> Mapping[str, list[str]]:
        """As the service says."""
        blind: Mapping[str, list[str]] = self._about().get("blind", {})
        return blind

    def lost(self) -> dict[str, int]:
        """What the service has lost, and what this reader has."""
        dropped = self._about().get("errors", {}).get("dropped", {})
        reasons = (DropReason.RING_FULL, DropReason.QUEUE_FULL)
        return {**{str(why): dropped.get(why, 0) for why in reasons}, **self._lost}

    def missed(self) -> dict[str, int]:
        """Since the service began."""
        missed = self._about().get("errors", {}).get("missed", {})
        return {name: n for name, n in missed.items() if n}

    def wait(self, timeout: float | None, others: Mapping[int, int]) -> frozenset[int]:
        """Until the service sends something, too."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        for descriptor, mask in others.items():
            poll.register(descriptor, mask)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
        return frozenset(ready & others.keys())

    def close(self) -> None:
        """Leave the socket."""
        self._socket.close()
