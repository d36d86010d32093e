"""When hooks run: never two at a time for the same, few at a time in all, and never waited for.

An error whose hook runs already waits, and those that are alike join it: one run stands for
all of them, with the sum of their counts and the rest as the first has it. What finds no
room to wait is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from typing import NamedTuple

from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError
from fserr_bpf.watchfiles.fileerror import FileError, environment
from fserr_bpf.watchfiles.runner import MESSAGE_SIZE

AT_ONCE = 4
"""Hooks that run at the same time at most."""
BACKLOG = 1024
"""Runs that wait at most."""
_PATIENCE_SECONDS = 1.0
_ENDED, _REMEDY = "the process that runs the hooks has ended", "start it again"


class Counts(NamedTuple):
    """Of hooks: those that have ended, by how; ``dropped`` and ``joined`` never began.

    ``joined`` are events that a later run stood for, too.
    """

    run: int = 0
    failed: int = 0
    timed_out: int = 0
    joined: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        names = zip(("failed", "timed out", "joined a later run", "dropped"), self[1:], strict=True)
        return f"hooks: {self.run} run" + "".join(f", {number} {name}" for name, number in names)


class Backlog:
    """What runs and what waits, as pure state. ``running`` is by number."""

    def __init__(self, at_once: int = AT_ONCE, limit: int = BACKLOG) -> None:
        self._at_once = at_once
        self._limit = limit
        self._waiting: dict[tuple[object, ...], FileError] = {}
        self._last = 0
        self.running: dict[int, FileError] = {}
        self.joined = self.dropped = 0

    def __len__(self) -> int:
        """The number of runs that wait."""
        return len(self._waiting)

    def add(self, error: FileError) -> bool:
        """Let ``error`` wait for its turn; False if it was dropped."""
        if earlier := self._waiting.get(error.alike):
            self._waiting[error.alike] = earlier._replace(
                error_count=earlier.error_count + error.error_count
            )
            self.joined += 1
            return True
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            return False
        self._waiting[error.alike] = error
        return True

    def take(self) -> tuple[int, FileError] | None:
        """The first that may begin now, which runs from here on, under a new number."""
        if len(self.running) >= self._at_once:
            return None
        busy = {error.alike for error in self.running.values()}
        alike = next((alike for alike in self._waiting if alike not in busy), None)
        if alike is None:
            return None
        self._last += 1
        self.running[self._last] = self._waiting.pop(alike)
        return self._last, self.running[self._last]

    def done(self, number: int) -> FileError:
        """A run has ended; returns what it was for."""
        return self.running.pop(number)

    def drop_all(self) -> int:
        """Nothing that waits is to run any more; returns how many runs that were."""
        count = len(self._waiting)
        self.dropped += count
        self._waiting.clear()
        return count


class Hooks(Closing):
    """Runs ``command`` for errors, in a process that keeps the rights of now.

    ``timeout`` is in seconds; ``user`` is whom a hook becomes, None for nobody else.
    ``fileno()`` is readable when ``collect()`` has something to do.
    """

    def __init__(self, command: str, timeout: float, user: str | None) -> None:
        self._backlog = Backlog()
        self._run = self._failed = self._timed_out = 0
        self._news: list[str] = []
        self._full = self._stopped = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: the current directory is anybody's, and this runs as root
            start = [sys.executable, "-P", "-m", "fserr_bpf.watchfiles.runner"]
            self._child = subprocess.Popen(
                [*start, str(theirs.fileno()), command, str(timeout), user or ""],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the monitor
            )
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, AT_ONCE * MESSAGE_SIZE)

    def fileno(self) -> int:
        """The descriptor to poll for POLLIN."""
        return self._socket.fileno()

    @property
    def running(self) -> int:
        """Hooks that run now."""
        return len(self._backlog.running)

    def add(self, error: FileError) -> None:
        """Have the hook run for ``error``, now or when its turn comes."""
        if not self._backlog.add(error) and not self._full:
            self._full = True
            self._news.append(f"{BACKLOG} hooks wait: no further one is run until there is room")
        self._begin()

    def collect(self) -> None:
        """Take what has ended, begin what may; FserrError if the process has ended."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take(self._receive())
        self._begin()

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(MESSAGE_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            raise FserrError(_ENDED, _REMEDY)
        return data

    def _take(self, data: bytes) -> None:
        answer = json.loads(data)
        error = self._backlog.done(answer["number"])
        self._run += 1
        self._failed += bool(answer["trouble"]) and not answer["late"]
        self._timed_out += answer["late"]
        if answer["trouble"]:
            self._news.append(f"hook for {error.path}: {answer['trouble']}")
        if not len(self._backlog):
            self._full = False

    def _begin(self) -> None:
        while begun := self._backlog.take():
            number, error = begun
            question = {"number": number, "environment": environment(error)}
            try:
                self._socket.send(json.dumps(question).encode())
            except BlockingIOError as busy:
                # as many as may run fit, unless nobody reads them
                raise FserrError("the process that runs the hooks hangs", _REMEDY) from busy
            except ConnectionError as gone:
                raise FserrError(_ENDED, _REMEDY) from gone

    def stop(self) -> None:
        """Begin no further hook; those that run go on, in their time."""
        if self._stopped:
            return
        self._stopped = True
        if dropped := self._backlog.drop_all():
            self._news.append(f"{dropped} hooks that waited are not run")
        if self.running:
            self._news.append(f"waiting for {self.running} hooks; a second signal leaves them")

    def news(self) -> list[str]:
        """What there is to tell since the last call, in words."""
        news, self._news = self._news, []
        return news

    def counts(self) -> Counts:
        """How many so far."""
        return Counts(
            self._run, self._failed, self._timed_out, self._backlog.joined, self._backlog.dropped
        )

    def close(self) -> None:
        """Leave the process, which ends what still runs in its time."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(0 if self.running else _PATIENCE_SECONDS)
