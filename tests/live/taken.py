"""A client (``tests/taken_calls.c``) whose fanotify calls the test answers."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fserr_bpf.tasks.filter import Rule
from fserr_bpf.tasks.seccomp import Listener, Notification, install_filter
from fserr_bpf.uapi.seccomp import NR_FANOTIFY_INIT, NR_FANOTIFY_MARK
from tests.c_reader import COMPILER
from tests.live.conftest import DEADLINE_SECONDS

BOTH_CALLS = (Rule(NR_FANOTIFY_INIT, 0), Rule(NR_FANOTIFY_MARK, 0))


class Taken(NamedTuple):
    """The client's process, and the listener of its calls."""

    process: subprocess.Popen[str]
    listener: Listener

    def call(self) -> Notification:
        """The next call; the test fails if none comes."""
        while True:
            if not select.select([self.listener], [], [], DEADLINE_SECONDS)[0]:
                pytest.fail("no call came")
            if call := self.listener.receive():
                return call

    def serve(self, answer: Callable[[Notification], object]) -> None:
        """Answer every call until no filtered task is left."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        # before 6.11 a task counts until it has been waited for
        ended = os.pidfd_open(self.process.pid)
        poll.register(ended, select.POLLIN)
        try:
            while ready := dict(poll.poll(DEADLINE_SECONDS * 1000)):
                if ready.get(ended):
                    self.process.wait()
                    poll.unregister(ended)
                events = ready.get(self.listener.fileno(), 0)
                if events & select.POLLIN:
                    if call := self.listener.receive():
                        answer(call)
                elif events & select.POLLHUP:
                    return
        finally:
            os.close(ended)
        pytest.fail("no call and no end came")

    def go_on(self) -> None:
        """Let it go on behind a "wait"."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def lines(self) -> list[str]:
        """What it has printed in all; it must end well."""
        output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert self.process.returncode == 0
        return output.splitlines()

    def said(self, word: str) -> list[int]:
        """The numbers that it has printed behind ``word``."""
        return [int(line.split()[1]) for line in self.lines() if line.startswith(f"{word} ")]


def compile_client(directory: Path) -> Path:
    """The program, made in ``directory``; static, so that it runs in an empty root."""
    program = directory / "taken_calls"
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-static"]
    source = Path(__file__).parents[1] / "taken_calls.c"
    subprocess.run([str(COMPILER), *options, "-o", str(program), str(source)], check=True)
    return program


@contextmanager
def taken(client: Path, words: str, *, within: Sequence[str] = ()) -> Iterator[Taken]:
    """The client doing what the words say, filtered, with pipes as its standard input and output.

    ``within`` is the command that starts it, after the filter is there.
    """
    ours, theirs = socket.socketpair()

    def filtered() -> None:
        fd = install_filter(BOTH_CALLS)
        socket.send_fds(theirs, [b"x"], [fd])
        os.close(fd)

    with (
        ours,
        theirs,
        subprocess.Popen(
            [*within, str(client), *words.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=filtered,  # noqa: PLW1509 - the tests have one thread
        ) as process,
    ):
        _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
        try:
            with Listener(fd) as listener:
                yield Taken(process, listener)
        finally:
            process.kill()


def descriptors() -> list[str]:
    """Our own open files, to see that none was left."""
    return sorted(os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists())
