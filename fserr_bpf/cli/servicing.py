"""A run with a configuration: its messages go to a service, SIGHUP reads the file again."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from fserr_bpf import __version__
from fserr_bpf.cli.messages import Messages
from fserr_bpf.cli.ready import Readiness
from fserr_bpf.cli.watching import say
from fserr_bpf.errors import UsageError
from fserr_bpf.model.event import EventId
from fserr_bpf.monitor import Monitor
from fserr_bpf.service import config
from fserr_bpf.service.description import Description
from fserr_bpf.service.output import OutputState
from fserr_bpf.service.report import Counted, Identity, Report
from fserr_bpf.service.sequence import Sequence
from fserr_bpf.service.service import Running


class ServiceReader:
    """Gives every message to ``running`` at once: what has no room there is lost there."""

    def __init__(
        self,
        monitor: Monitor,
        running: Running,
        description: Description,
        sequence: Sequence,
        readiness: Readiness,
    ) -> None:
        self._monitor = monitor
        self._running = running
        self._description = description
        self._sequence = sequence
        self._readiness = readiness
        self._reload_failures = 0
        self._identity = Identity(
            pid=os.getpid(),
            version=__version__,
            kernel=os.uname().release,
            stream=str(monitor.stream),
            since_ns=time.time_ns(),
        )

    def take(self, messages: Messages) -> None:
        """All of them."""
        while len(messages):
            self._running.give(messages.pop())
        self._tell()
        if self._running.is_due():
            self._running.show(self._report)

    def _tell(self) -> None:
        for line in self._running.news():
            say(line)

    def masks(self, *, waiting: bool) -> Mapping[int, int]:
        """What outputs wait for; nothing waits here."""
        return self._running.masks()

    @property
    def due(self) -> float | None:
        """When an output, or the state file, has its time."""
        return self._running.due

    def step(self, ready: frozenset[int], *, waiting: bool) -> None:
        """Let outputs go on."""
        self._running.step(ready)

    def hang_up(self) -> bool:
        """Read the configuration again; one that is wrong changes nothing."""
        self._readiness.reloading()
        try:
            self._change(config.read(self._description.file))
        except UsageError as error:
            self._reload_failures += 1
            say(f"{error}; the configuration of before goes on")
        self._running.reopen()
        self._readiness.reloaded()
        return True

    def _change(self, new: Description) -> None:
        if fixed := self._description.differs(new):
            raise UsageError(
                f"{new.file}: {', '.join(fixed)} cannot change while it runs",
                "start fserr-bpf again",
            )
        if new == self._description:
            return
        assert new.service is not None
        self._running.change(new.service)
        self._description = new
        say(f"{new.file} has been read again")

    def _report(self, errors: Mapping[Counted, int], outputs: list[OutputState]) -> Report:
        sequence, states = self._sequence, self._monitor.states
        return Report(
            identity=self._identity,
            time_ns=time.time_ns(),
            last=EventId(sequence.boot_id, sequence.run, sequence.last),
            blind=self._monitor.blind(),
            states=tuple(states.states()) if states else (),
            statistics=self._monitor.statistics(),
            errors=errors,
            outputs=tuple(outputs),
            reload_failures=self._reload_failures,
        )

    def account(self, monitor: Monitor) -> None:
        """What the outputs have not delivered, and the loss arithmetic."""
        self._running.close()
        self._tell()
        say(str(monitor.statistics()))
