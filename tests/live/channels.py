"""Groups in front of a client: the kernel's own, and ours on each kind of descriptor.

The loop runs in the test's process, clients are processes of their own. The kernel's group
here is one without file handles, which every kernel lets mark any directory: its events
are of another kind, everything else about its descriptor is the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fserr_bpf.closing import Closing
from fserr_bpf.exec.channel import Channel
from fserr_bpf.exec.exact import ExactChannel
from fserr_bpf.exec.fuse import FuseServer
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.pipe import PipeChannel
from fserr_bpf.kernel import syscalls
from fserr_bpf.model.event import FileHandle, FsErrorEvent, Fsid
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.uapi.fanotify import FAN_CLOEXEC, FAN_MARK_ADD, FAN_NONBLOCK
from tests.live.conftest import DEADLINE_IDLE
from tests.patience import Deadline

MS = 1_000_000
FSID = Fsid(1, 2)
FAN_MODIFY = 0x2
FAN_EVENT_ON_CHILD = 0x08000000
HANDLE = FileHandle(1, bytes(8))


def run_until(loop: Loop, condition: Callable[[], bool], what: str) -> None:
    """Serve until ``condition`` holds; the test fails after the deadline."""
    deadline = Deadline(DEADLINE_IDLE)
    holds = False

    def check() -> None:
        nonlocal holds
        holds = condition()
        if holds or deadline.has_expired():
            loop.stop()
        else:
            loop.call_at(time.monotonic_ns() + MS, check)

    loop.call_at(0, check)
    loop.run()
    if not holds:
        pytest.fail(f"waited {deadline.seconds:.0f} s in vain for {what}")


class Group(Closing):
    """A group that a client can be given, and that reports can be made to."""

    event_size: int
    loop: Loop

    @abstractmethod
    def client_end(self) -> int:
        """A descriptor to give to a client, and then back to `given`."""

    def given(self, end: int) -> None:
        """The client has it."""
        os.close(end)

    @abstractmethod
    def report(self, key: int) -> None:
        """Something happens; what has the same key may merge."""

    def settle(self) -> None:
        """Wait until a client would see all reports."""

    def settled(self, *keys: int) -> None:
        """Report all and settle."""
        for key in keys:
            self.report(key)
        self.settle()


class Native(Group):
    """The kernel's own."""

    event_size = 24

    def __init__(self, loop: Loop, directory: Path, *, nonblocking: bool) -> None:
        self.loop = loop
        self._directory = directory
        flags = FAN_CLOEXEC | (FAN_NONBLOCK if nonblocking else 0)
        self._fd: int | None = syscalls.fanotify_init(flags)
        mask = FAN_MODIFY | FAN_EVENT_ON_CHILD
        syscalls.fanotify_mark(self._fd, FAN_MARK_ADD, mask, str(directory))

    def client_end(self) -> int:
        assert self._fd is not None
        descriptor, self._fd = self._fd, None
        return descriptor

    def report(self, key: int) -> None:
        (self._directory / str(key)).write_text("x")

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


class Emulated(Group):
    """Ours; reports wait in ``pending`` as they do in the ring, until they are pumped."""

    event_size = 64

    def __init__(self, loop: Loop, make: Callable[[Emulated], Channel]) -> None:
        self.loop = loop
        self.queue = NotificationQueue()
        self.pending: deque[int] = deque()
        self.gone = 0
        self.channel = make(self)

    def gone_callback(self) -> None:
        self.gone += 1

    def pump(self) -> None:
        if self.pending:
            self.channel.before_insert()
            while self.pending:
                key = self.pending.popleft()
                self.queue.insert(FSID, key, partial(event, key))
            self.channel.fed()

    def client_end(self) -> int:
        end = self.channel.client_end()
        assert end is not None
        return end

    def given(self, end: int) -> None:
        self.channel.given(end)

    def report(self, key: int) -> None:
        self.pending.append(key)
        self.loop.call_at(0, self.pump)

    def settle(self) -> None:
        piped = isinstance(self.channel, PipeChannel)
        run_until(
            self.loop,
            lambda: not self.pending and not (piped and len(self.queue)),
            "the reports to be there",
        )

    def close(self) -> None:
        self.channel.close()


def event(key: int) -> FsErrorEvent:
    """The event of a report."""
    return FsErrorEvent(FSID, HANDLE, 5, 1, key)


def pipe_group(loop: Loop, *, nonblocking: bool = False, hold_ns: int = 4 * MS) -> Emulated:
    def make(group: Emulated) -> Channel:
        return PipeChannel(
            group, loop, group.gone_callback, nonblocking=nonblocking, hold_ns=hold_ns
        )

    return Emulated(loop, make)


def exact_group(server: FuseServer, loop: Loop, *, nonblocking: bool = False) -> Emulated:
    def make(group: Emulated) -> Channel:
        return ExactChannel(server, group, group.gone_callback, nonblocking=nonblocking)

    return Emulated(loop, make)


class Reader(Closing):
    """A forked process that runs ``work`` and writes what it returns; it ends with us."""

    def __init__(self, loop: Loop, work: Callable[[], str]) -> None:
        self._loop = loop
        output, into = os.pipe2(os.O_CLOEXEC)
        self._pid: int | None = os.fork()
        if self._pid == 0:
            try:
                os.write(into, work().encode())
            finally:
                os._exit(0)
        os.close(into)
        self._output = output

    def result(self) -> str:
        """What work returned, "" if it failed; served until it is there."""
        run_until(self._loop, self._ended, "the reader to end")
        return os.read(self._output, 65536).decode()

    def close(self) -> None:
        os.close(self._output)
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _ended(self) -> bool:
        assert self._pid is not None
        if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            return False
        self._pid = None
        return True


class Client(Closing):
    """The program ``channel_client`` with the group's descriptor and nothing else of ours.

    Sizes in its commands are ``N`` events and ``D`` bytes: "read:2+-1" is one byte less than
    two events. Behind a "fork" ``pid`` is the child, which the first process is the parent of:
    a supervisor never is its client's parent, and would be told of other things if it were.
    Not ``at_once``: the test gives back ``end``, our copy of the descriptor, itself.
    """

    def __init__(self, program: Path, group: Group, *commands: str, at_once: bool = True) -> None:
        self._group = group
        self._lines: list[int] = []
        self._rest = b""
        end = group.client_end()
        command = [str(program), str(end), *(_sized(c, group.event_size) for c in commands)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, pass_fds=[end], stdin=pipe, stdout=pipe)
        if at_once:
            group.given(end)
        self.end = end
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self.pid = self.process.pid
        os.set_blocking(self._output, False)

    def close(self) -> None:
        self.process.kill()
        # its end may wait for an answer of ours
        run_until(self._group.loop, lambda: self.process.poll() is not None, "its end")
        self.process.__exit__(None, None, None)

    def results(self, count: int) -> list[int]:
        """The next ``count`` results, served until they are there."""
        run_until(
            self._group.loop, lambda: len(self._read()) >= count, f"{count} results of the client"
        )
        taken, self._lines = self._lines[:count], self._lines[count:]
        return taken

    def result(self) -> int:
        (value,) = self.results(1)
        return value

    def events(self) -> int:
        """The next result, which has to be a read of whole events: how many."""
        count, rest = divmod(self.result(), self._group.event_size)
        assert rest == 0
        return count

    def forked(self) -> None:
        """The result of a "fork"."""
        self.pid = self.result()

    def send(self, sent: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, sent)

    def go(self) -> None:
        """Let it go on behind a "go"."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        assert self.result() == 1

    def wait_blocked(self, syscall: int = 0) -> None:
        """Serve until it waits in a system call with its group's descriptor: read, by default."""
        path = Path(f"/proc/{self.pid}/syscall")

        def blocked() -> bool:
            words = path.read_text().split()
            # descriptor 0 is that of "go"
            return words[0] == str(syscall) and (syscall != 0 or words[1] != "0x0")

        run_until(self._group.loop, blocked, "the client to wait")

    def ended(self) -> int:
        """Its exit status, as subprocess says it."""
        run_until(self._group.loop, lambda: self.process.poll() is not None, "the client to end")
        assert self.process.returncode is not None
        return self.process.returncode

    def _read(self) -> list[int]:
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return self._lines
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += map(int, lines)
        return self._lines


def _sized(command: str, event_size: int) -> str:
    name, _, value = command.partition(":")
    if "+" not in value:
        return command
    events, _, more = value.partition("+")
    return f"{name}:{int(events) * event_size + int(more)}"
