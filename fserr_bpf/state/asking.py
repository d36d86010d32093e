"""Questions that are open, and the processes that have them answered. Nothing here waits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fserr_bpf.children.channel import channel_pair
from fserr_bpf.closing import Closing
from fserr_bpf.state.ask import Answer
from fserr_bpf.state.patience import LOOK_SECONDS, is_blocked
from fserr_bpf.state.worker import Asked, answer_of, ask_aside

_PATIENCE_NS = 3_000_000_000
_MORE_NS = round(LOOK_SECONDS * 1_000_000_000)  # for one who waits for a processor
_END_SECONDS = 1.0
_ROUTINE_NS = 30_000_000_000  # nobody is woken to find out that there is no answer


@dataclass
class _Process:
    """One that asks; ``open`` has its questions without an answer, with those expected.

    ``late_ns`` (CLOCK_MONOTONIC): then they are late, 0 once that was said.
    """

    pid: int
    open: dict[int, Answer | None]
    late_ns: int
    routine: bool
    ended: bool = field(default=False)
    failed: bool = field(default=False)

    def look(self) -> None:
        """Reap it if it has ended."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # whose program ignores SIGCHLD, the kernel reaps it itself
            self.ended = True
            return
        self.ended, self.failed = pid != 0, status != 0

    def end(self) -> None:
        """Kill it, and wait a moment until it has ended."""
        until = time.monotonic() + _END_SECONDS
        self.look()
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
        while not self.ended and time.monotonic() < until:
            time.sleep(LOOK_SECONDS / 10)
            self.look()


class Asking(Closing):
    """``fileno()`` is readable when there is news: not for an answer that was expected."""

    def __init__(self) -> None:
        # both ends stay open here: that a process ends is no reason to wake up
        self._answers, self._theirs = channel_pair()
        self._processes: list[_Process] = []

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._answers.fileno()

    def ask(self, asked: Sequence[Asked], *, routine: bool) -> None:
        """Have them answered; ``routine``: there is time. Raises OSError without a process."""
        pid = ask_aside(asked, self._theirs)
        late_ns = time.monotonic_ns() + (_ROUTINE_NS if routine else _PATIENCE_NS)
        self._processes.append(
            _Process(pid, {one.number: one.expected for one in asked}, late_ns, routine)
        )

    def waits_for(self, number: int) -> bool:
        """Whether an answer of this number may still come."""
        return any(number in process.open for process in self._processes)

    def late_ns(self) -> int:
        """When somebody has to look whether an answer is late; 0 if never."""
        times = (p.late_ns for p in self._processes if p.open and p.late_ns and not p.routine)
        return min(times, default=0)

    def collect(self) -> Iterator[tuple[int, Answer | None]]:
        """The answers since the last call; None for one that is late, and may come yet."""
        for process in self._processes:  # before its answers are taken in: then these are all
            process.look()
        yield from self._received()
        now = time.monotonic_ns()
        for process in list(self._processes):
            if not process.open:  # it ends by itself, or has
                process.end()
            if process.ended:
                self._processes.remove(process)
                for number, expected in process.open.items():
                    yield number, None if process.failed else expected
            elif process.late_ns and now >= process.late_ns:
                if is_blocked(process.pid):
                    process.late_ns = 0
                    for number in process.open:
                        yield number, None
                else:
                    process.late_ns = now + _MORE_NS

    def _received(self) -> Iterator[tuple[int, Answer]]:
        while True:
            try:
                number, answer = answer_of(self._answers.receive(wait=False))
            except BlockingIOError:
                return
            for process in self._processes:
                if number in process.open:
                    del process.open[number]
                    yield number, answer

    def close(self) -> None:
        """End what asks; what a disk holds is left to it."""
        for process in self._processes:
            process.end()
        self._answers.close()
        self._theirs.close()
