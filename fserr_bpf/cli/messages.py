"""From a monitor to whoever takes its messages: one stream, or a service with many outputs."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from fserr_bpf.cli.watching import say, say_news, say_states
from fserr_bpf.errors import OutputError
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.state import StateChange
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs import text
from fserr_bpf.outputs.formats import Format
from fserr_bpf.outputs.sink import Sink
from fserr_bpf.service.sequence import Sequence


class Messages:
    """What a monitor has now: states, then events. Each gets its number as it is taken.

    ``states``: whether states are messages; they are told in any case.
    """

    def __init__(self, monitor: Monitor, sequence: Sequence, *, states: bool) -> None:
        self._monitor = monitor
        self._sequence = sequence
        self._wants_states = states
        self._states: deque[StateChange] = deque()

    def refresh(self) -> None:
        """Bring what there is by now, and tell what has changed."""
        self._monitor.pump()
        say_news(self._monitor)
        changes = say_states(self._monitor)
        if self._wants_states:
            self._states += changes

    def __len__(self) -> int:
        return len(self._states) + len(self._monitor)

    def pop(self) -> Event | StateChange:
        """The next; IndexError where there is none."""
        if self._states:
            return self._states.popleft()._replace(id=self._sequence.next())
        return self._monitor.pop()._replace(id=self._sequence.next())

    def look_again(self) -> None:
        """Ask for all states once more: what has changed at last."""
        if self._monitor.states:
            self._monitor.states.look_again()
        changes = say_states(self._monitor)
        if self._wants_states:
            self._states += changes


class Reader(Protocol):
    """Who takes messages, without ever waiting."""

    def take(self, messages: Messages) -> None:
        """As many as there is room for; what is left may merge."""

    def masks(self, *, waiting: bool) -> Mapping[int, int]:
        """What to poll for."""

    @property
    def due(self) -> float | None:
        """When there is something to do whatever happens, CLOCK_MONOTONIC in seconds."""

    def step(self, ready: frozenset[int], *, waiting: bool) -> None:
        """Some of the descriptors may be ready, or the time may have come."""

    def hang_up(self) -> bool:
        """SIGHUP: whether that means anything else here than the end."""

    def account(self, monitor: Monitor) -> None:
        """At the end: what became of everything."""


class StreamReader:
    """Writes to a descriptor, whose reader may be slow: then events stay where they merge."""

    due = None

    def __init__(self, sink: Sink, form: Format) -> None:
        self._sink = sink
        self._format = form
        self.failed: list[Event] = []
        """Events that could not be written."""

    def take(self, messages: Messages) -> None:
        """Raises OutputError, with what was being written in ``failed``."""
        while len(messages) and self._sink.ready():
            taken: list[Event | StateChange] = []
            records: list[bytes] = []
            size = 0
            while len(messages) and (size < self._sink.batch or not taken):
                taken.append(messages.pop())
                records.append(self._encoded(taken[-1]))
                size += len(records[-1])
            try:
                self._sink.write(records)
            except OutputError:
                self.failed += [each for each in taken if not isinstance(each, StateChange)]
                raise

    def _encoded(self, message: Event | StateChange) -> bytes:
        if not isinstance(message, StateChange):
            return self._format.encode(message)
        assert self._format.encode_more is not None  # else there would be no states
        return self._format.encode_more(message)

    def masks(self, *, waiting: bool) -> Mapping[int, int]:
        """Room while something waits, else only that the reader leaves."""
        return self._sink.masks(waiting=waiting)

    def step(self, ready: frozenset[int], *, waiting: bool) -> None:
        """Raises OutputError if the reader has gone."""
        if not waiting and ready & self._sink.masks(waiting=False).keys():
            raise self._sink.reader_gone()

    def hang_up(self) -> bool:
        """Open a file again, which may be another by now."""
        if not self._sink.path:
            return False
        try:
            self._sink.reopen()
        except OutputError as error:  # not a reason to stop watching
            say(str(error))
        return True

    def account(self, monitor: Monitor) -> None:
        """The loss arithmetic, and in words what was captured but not written."""
        if self.failed:
            monitor.pump()
        while len(monitor):  # the reader has no room
            self.failed.append(monitor.pop())
        for event in self.failed:
            sys.stderr.write(text.line(event) + "\n")
        counts = [event.error_count for event in self.failed if isinstance(event, FsErrorEvent)]
        say(str(monitor.statistics().without_output(sum(counts), len(counts))))
