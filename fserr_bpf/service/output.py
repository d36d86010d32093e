"""One output with a queue and a thread of its own: nobody waits for it, nothing else fails with it.

What cannot be delivered is tried again, with pauses that grow; meanwhile messages wait in the
queue. Trouble and its end are told once each.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fserr_bpf.errors import FserrError
from fserr_bpf.model.event import Lost
from fserr_bpf.outputs.classes import class_of
from fserr_bpf.outputs.schema import Message
from fserr_bpf.service.backlog import Backlog
from fserr_bpf.service.description import Queueing

BATCH = 64
"""Messages that are given to a target at once."""
END_SECONDS = 2.0
"""For what waits when the run ends."""
_PAUSES = (1.0, 60.0)  # seconds, the first after a failure and the longest


class Target(Protocol):
    """Where an output goes. Its thread alone calls it, and it may wait there."""

    def send(self, messages: list[Message]) -> int:
        """Deliver; how many of the first were. Raises OSError or FserrError if none was."""

    def reopen(self) -> None:
        """The place may be another by now."""

    def close(self) -> None:
        """Release it."""


class OutputState(NamedTuple):
    """How an output is: messages that wait, were sent and were lost; what is wrong, "" if nothing.

    ``failures`` counts attempts.
    """

    name: str
    waiting: int
    sent: int
    lost: int
    failures: int
    trouble: str


class Output:
    """A ``target`` that gets messages of some classes. ``notify`` is called when there is news.

    To be started after rights were given up: a thread keeps those that it has.
    """

    def __init__(
        self, name: str, target: Target, queueing: Queueing, notify: Callable[[], None]
    ) -> None:
        self.name = name
        self._target = target
        self._classes = queueing.classes
        self._backlog = Backlog(queueing.queue, queueing.drop)
        self._notify = notify
        self._changed = threading.Condition()
        self._ending = self._reopening = self._full = False
        self._sent = self._failures = 0
        self._sending: list[Message] = []
        self._trouble = ""
        self._news: list[str] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    # -- for the monitor's thread: none of these waits ---------------------------------

    def give(self, message: Message) -> None:
        """Let it wait here, if it is of the classes."""
        if class_of(message) not in self._classes:
            return
        with self._changed:
            if not self._backlog.put(message) and not self._full:
                self._full = True
                self._news.append(f"{self.name}: its queue is full; what is lost is counted")
            self._changed.notify()

    def reopen(self) -> None:
        """Have the target opened again."""
        with self._changed:
            self._reopening = True
            self._changed.notify()

    def news(self) -> list[str]:
        """Messages since the last call."""
        with self._changed:
            news, self._news = self._news, []
            return news

    def state(self) -> OutputState:
        """Now."""
        with self._changed:
            waiting = self._backlog.messages + len(self._sending)
            lost = self._backlog.lost
            return OutputState(self.name, waiting, self._sent, lost, self._failures, self._trouble)

    def close(self, seconds: float = END_SECONDS) -> None:
        """Deliver what waits in so many seconds, tell the rest; a thread that hangs is left."""
        if self._thread.ident is None:
            self._target.close()
            return
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(seconds)
        left = self.state().waiting
        if left:
            self._news.append(f"{self.name}: not delivered at the end: {left} messages")

    # -- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                self._wait(pause)
                if self._ending and (pause or not len(self._backlog)):
                    break
                reopening, self._reopening = self._reopening, False
                self._sending = self._backlog.take(BATCH)
            pause = self._step(pause, reopening)
        self._target.close()

    def _wait(self, pause: float) -> None:
        """Until there is something to do; after a failure not before ``pause`` seconds."""
        if pause:
            until = time.monotonic() + pause
            while not (self._ending or self._reopening) and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return
        while not (self._ending or self._reopening or len(self._backlog)):
            self._changed.wait()

    def _step(self, pause: float, reopening: bool) -> float:
        """Deliver what was taken; returns the pause, 0 if it went well."""
        sent = 0
        try:
            if reopening:
                self._target.reopen()
            while sent < len(self._sending):
                sent += self._target.send(self._sending[sent:])
        except (OSError, FserrError) as error:
            self._account(sent, _cause(error))
            first, longest = _PAUSES
            return min(pause * 2 or first, longest)
        self._account(sent, "")
        return 0.0

    def _account(self, sent: int, trouble: str) -> None:
        with self._changed:
            self._sent += sum(not isinstance(each, Lost) for each in self._sending[:sent])
            self._backlog.put_back(self._sending[sent:])
            self._sending = []
            if trouble:
                self._failures += 1
            elif not len(self._backlog):
                self._full = False
            if bool(trouble) != bool(self._trouble):
                self._news.append(
                    f"{self.name}: {trouble}; tried again until it works"
                    if trouble
                    else f"{self.name}: works again"
                )
            self._trouble = trouble
        if self._news or sent:
            self._notify()


def _cause(error: OSError | FserrError) -> str:
    if isinstance(error, FserrError):
        return error.cause
    return os.strerror(error.errno) if error.errno else str(error)
