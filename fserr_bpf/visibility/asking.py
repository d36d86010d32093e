"""Places that the probe did not see, asked for after the fact: the monitor's end.

A process of its own may wait for a broken disk. The monitor waits for it a second at most,
and asks nothing more while an answer is overdue.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from fserr_bpf.closing import Closing
from fserr_bpf.live.timer import Timer
from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.side import Ancestor
from fserr_bpf.visibility.rules import Chain, Place
from fserr_bpf.visibility.worker import MESSAGE_SIZE

DEADLINE_NS = 1_000_000_000
_PATIENCE_SECONDS = 1.0
_Question = tuple[tuple[int, int], FileHandle]


class Places(Closing):
    """Asks for places; every ticket is answered, with None at the latest when it is due.

    The process starts at once, so call ``ready()`` before anything else, but as late as can be.
    ``filenos()`` are readable when ``collect()`` has something to do. ``news`` has, in
    words, what went wrong.
    """

    def __init__(self) -> None:
        self.news: list[str] = []
        self._tickets = 0
        self._open: dict[_Question, int] = {}
        self._due: dict[int, int] = {}  # when the answer is overdue, oldest first
        self._overdue: set[int] = set()
        self._humble = False
        self._timer = Timer()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket: socket.socket | None = ours
        with theirs:
            # -P: the current directory is anybody's, and this runs as root
            command = [sys.executable, "-P", "-m", "fserr_bpf.visibility.worker"]
            self._child = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def ready(self) -> None:
        """Wait until the process runs: what it takes to start is not taken off the deadline."""
        if self._socket:
            self._socket.setblocking(True)
            if not self._socket.recv(MESSAGE_SIZE):
                self._end()
                return
            self._socket.setblocking(False)

    @property
    def overdue(self) -> bool:
        """Whether an answer should have come; nothing is asked meanwhile."""
        return bool(self._overdue)

    def filenos(self) -> tuple[int, ...]:
        """The descriptors to poll for POLLIN."""
        timer = self._timer.fileno()
        return (self._socket.fileno(), timer) if self._socket else (timer,)

    def become(self, user: str | None) -> None:
        """The process gives up its rights, as ``drop()`` for ``user``; at the latest when asked."""
        if not self._humble:
            self._humble = self._send({"user": user})

    def ask(self, mount_point: str, dev: tuple[int, int], handle: FileHandle) -> int | None:
        """The ticket of the answer, None where nobody can be asked.

        A question that is open is asked once. ``dev`` is (major, minor) of the superblock.
        """
        question = (dev, handle)
        if question in self._open:
            return self._open[question]
        self.become(None)
        if self.overdue or not self._humble:
            return None
        ticket = self._tickets = self._tickets + 1
        asked = self._send(
            {
                "ticket": ticket,
                "mount_point": mount_point,
                "dev": dev,
                "handle_type": handle.handle_type,
                "f_handle": handle.f_handle.hex(),
            }
        )
        if not asked:
            return None
        self._open[question] = ticket
        self._due[ticket] = time.monotonic_ns() + DEADLINE_NS
        self._set_timer()
        return ticket

    def collect(self) -> Mapping[int, Place | None]:
        """The answers since the last call, by ticket."""
        answers: dict[int, Place | None] = {}
        while self._socket:
            try:
                data = self._socket.recv(MESSAGE_SIZE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._end()
                break
            answer = json.loads(data)
            self._overdue.discard(answer["ticket"])
            if answer["ticket"] in self._due:
                answers[answer["ticket"]] = _place(answer["place"])
        now = time.monotonic_ns()
        for ticket, due in self._due.items():
            if ticket not in answers and (due <= now or not self._socket):
                answers[ticket] = None
                if self._socket:
                    self._overdue.add(ticket)
        for ticket in answers:
            del self._due[ticket]
        self._open = {q: ticket for q, ticket in self._open.items() if ticket in self._due}
        if answers:
            self._set_timer()
        return answers

    def _set_timer(self) -> None:
        self._timer.set(next(iter(self._due.values()), 0))

    def _send(self, message: dict[str, object]) -> bool:
        """False if there is no room for one more now, or nobody there."""
        if not self._socket:
            return False
        try:
            self._socket.send(json.dumps(message).encode())
        except BlockingIOError:
            return False
        except OSError:
            self._end()
            return False
        return True

    def _end(self) -> None:
        """It has ended, whoever did that: what is open will not be answered."""
        if self._socket:
            self._socket.close()
            self._socket = None
            self.news.append(
                "the process that looks for places has ended: only what the probes see counts"
            )

    def close(self) -> None:
        """End it; one that hangs in the kernel is left to it."""
        if self._socket:
            self._socket.close()
            self._socket = None
        self._timer.close()
        self._child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_PATIENCE_SECONDS)


def _place(answer: list[object] | None) -> Place | None:
    """A place as JSON has it: named tuples are lists there."""
    if answer is None:
        return None
    chains, complete = answer
    assert isinstance(chains, list)
    return Place(
        tuple(Chain(tuple(Ancestor(*a) for a in above), whole) for above, whole in chains),
        bool(complete),
    )
