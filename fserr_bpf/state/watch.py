"""The states of the file systems that are watched, and what changes of them.

A file system is asked when it is seen first, when its mount or an error says that there may
be something new, and otherwise once a minute, except for ext4: to ask that may be to flush its
disk, so only a change in sysfs or the mount table is a reason. Nothing here waits for an
answer but `settle`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fserr_bpf.children.spawn import spawn
from fserr_bpf.closing import Closing
from fserr_bpf.kernel.timer import Timer
from fserr_bpf.model.state import FilesystemState, StateChange
from fserr_bpf.state.ask import Answer, Question
from fserr_bpf.state.look import question_of, state_of
from fserr_bpf.state.signs import Signs, read_signs
from fserr_bpf.state.superblocks import Superblock
from fserr_bpf.state.worker import answer_of
from fserr_bpf.uapi.dev import Dev

PERIOD_NS = 60_000_000_000
"""Between two looks at a file system of which nothing is heard."""
_SOON_NS = 200_000_000  # after an error: ext4 counts it in a worker
_GAP_NS = 1_000_000_000  # between two questions while errors come
_PATIENCE_NS = 3_000_000_000  # for an answer, before the state is unknown
_START_SECONDS = 20.0  # for the process to come up; an emulated machine takes seconds
_MODULE = "fserr_bpf.state.worker"


@dataclass
class _Known:
    """A superblock; times are CLOCK_MONOTONIC in ns, 0 for never."""

    superblock: Superblock
    signs: Signs
    answer: Answer | None = None
    state: FilesystemState | None = None
    asked_ns: int = 0
    due_ns: int = 0
    number: int = 0  # of the question that is open, 0 without one
    late: bool = False  # its answer


class StateWatch(Closing):
    """Asks by a process of its own, which can hang in our place. Raises OSError without one."""

    def __init__(self) -> None:
        self._child = spawn(_MODULE)
        self._timer = Timer()
        self._known: dict[Dev, _Known] = {}
        self._past: dict[Dev, FilesystemState] = {}  # of those that are not mounted now
        self._number = 0
        self._changes: list[StateChange] = []
        self._news: list[str] = []
        self._ready = self._ended = False
        self._tick_ns = time.monotonic_ns() + PERIOD_NS

    def drop_rights(self, user: str | None) -> None:
        """Keep what looking needs, or become ``user`` without any right."""
        self._send({"user": user})

    def filenos(self) -> list[int]:
        """Readable when `pump` has something to do."""
        answers = [] if self._ended else [self._child.channel.fileno()]
        return [*answers, self._timer.fileno()]

    # -- what is seen ----------------------------------------------------------------

    def see(self, superblocks: Iterable[Superblock], watched: frozenset[Dev] | None) -> None:
        """These are mounted; those in ``watched`` count, and what was not well before."""
        found = {
            each.dev: each
            for each in superblocks
            if watched is None or each.dev in watched or self._was_bad(each.dev)
        }
        for dev in self._known.keys() - found.keys():
            state = self._known.pop(dev).state
            if state:
                self._past[dev] = state
        now = time.monotonic_ns()
        for dev, superblock in found.items():
            known = self._known.get(dev)
            signs = read_signs(superblock)
            if known is None:
                self._known[dev] = _Known(superblock, signs, due_ns=now)
            elif known.superblock != superblock or known.signs != signs:
                known.superblock, known.signs, known.due_ns = superblock, signs, now
        self.pump()

    def _was_bad(self, dev: Dev) -> bool:
        past = self._past.get(dev) or (self._known[dev].state if dev in self._known else None)
        return past is not None and not past.ok

    def touch(self, dev: Dev) -> None:
        """An error has been heard of it."""
        known = self._known.get(dev)
        if known and not known.due_ns:
            now = time.monotonic_ns()
            known.due_ns = max(now + _SOON_NS, known.asked_ns + _GAP_NS)
            self._set_timer()

    # -- questions and answers -------------------------------------------------------

    def settle(self) -> None:
        """Wait for the first answers, as long as they are not late."""
        self._wait(lambda: any(known.state is None for known in self._known.values()))

    def _wait(self, lacks: Callable[[], bool]) -> None:
        poll = select.poll()
        for descriptor in self.filenos():
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + _START_SECONDS
        while not self._ended and lacks():
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return
            self.pump()

    def look_again(self) -> None:
        """Ask all once more, and wait for the answers: what was not heard of is found."""
        now = time.monotonic_ns()
        for known in self._known.values():
            known.due_ns = now
        self.pump()
        self._wait(lambda: any(known.number and not known.late for known in self._known.values()))

    def pump(self) -> None:
        """Take answers in, ask what is due."""
        self._receive()
        now = time.monotonic_ns()
        if now >= self._tick_ns:
            self._tick_ns = now + PERIOD_NS
            for known in self._known.values():
                self._look_again(known, now)
        for known in self._known.values():
            if self._is_waited_for(known) and now >= known.asked_ns + _PATIENCE_NS:
                known.answer, known.late = None, True
                self._judge(known)
            if known.due_ns and now >= known.due_ns and not known.number:
                self._ask(known, now)
        self._set_timer()

    def _look_again(self, known: _Known, now: int) -> None:
        signs = read_signs(known.superblock)
        if signs != known.signs or signs.driver != "ext4":
            known.signs, known.due_ns = signs, now

    def _ask(self, known: _Known, now: int) -> None:
        known.signs = read_signs(known.superblock)
        known.asked_ns, known.due_ns = now, 0
        asked = question_of(known.superblock, known.signs)
        if not isinstance(asked, Question) or self._ended:
            known.answer = Answer() if isinstance(asked, Question) else asked
            self._judge(known)
            return
        self._number += 1
        known.number, known.late = self._number, False
        self._send({"number": self._number, "question": asked})

    def _is_waited_for(self, known: _Known) -> bool:
        return self._ready and bool(known.number) and not known.late

    def _send(self, message: dict[str, object]) -> None:
        try:
            self._child.channel.send(message)
        except ConnectionError:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._news.append("the process that asks for states has ended; restart to ask again")
        for known in self._known.values():
            known.number = 0

    def _receive(self) -> None:
        while not self._ended:
            try:
                message = self._child.channel.receive(wait=False)
            except BlockingIOError:
                return
            except EOFError:
                self._end()
                return
            if "ready" in message:  # what it takes to start is no answer that is late
                self._ready = True
                for known in self._known.values():
                    known.asked_ns = time.monotonic_ns()
                continue
            number, answer = answer_of(message)
            for known in self._known.values():
                if known.number == number:
                    known.number, known.answer = 0, answer
                    self._judge(known)

    def _judge(self, known: _Known) -> None:
        state = state_of(known.superblock, known.signs, known.answer)
        before = known.state or self._past.pop(state.dev, None)
        is_first = known.state is None
        known.state = state
        if is_first or before is None or _essence(before) != _essence(state):
            self._changes.append(
                StateChange(time.time_ns(), state, before.condition if before else None)
            )

    def _set_timer(self) -> None:
        times = [self._tick_ns]
        for known in self._known.values():
            if self._is_waited_for(known):
                times.append(known.asked_ns + _PATIENCE_NS)
            elif known.due_ns and not known.number:
                times.append(known.due_ns)
        self._timer.set(min(times))

    # -- what is known ---------------------------------------------------------------

    def changes(self) -> list[StateChange]:
        """The first state of each file system, and what changed since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def news(self) -> list[str]:
        """Messages since the last call."""
        news, self._news = self._news, []
        return news

    def states(self) -> list[FilesystemState]:
        """All that are known now."""
        return [known.state for known in self._known.values() if known.state]

    def close(self) -> None:
        """End the process; one that a disk holds is left to it."""
        self._child.end()
        self._timer.close()


def _essence(state: FilesystemState) -> tuple[object, ...]:
    """What makes another state of it: one more error on record does not, that is an event."""
    return state.condition, state.first, state.sick, bool(state.errors), state.reason
