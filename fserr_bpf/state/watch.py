"""The states of the file systems that are watched, and what changes of them.

A file system is asked when it is seen first, when its mount or an error says that there may
be something new, and otherwise once a minute, except for ext4: to ask that may be to flush its
disk, so only a change in sysfs or the mount table is a reason. Nothing here waits for an
answer but `settle` and `look_again`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.privileges import may_read
from fserr_bpf.kernel.timer import Timer
from fserr_bpf.model.state import FilesystemState, StateChange
from fserr_bpf.state.ask import Answer, Question
from fserr_bpf.state.asking import Asking
from fserr_bpf.state.look import question_of, state_of
from fserr_bpf.state.signs import Signs, read_signs
from fserr_bpf.state.superblocks import Superblock
from fserr_bpf.state.worker import Asked
from fserr_bpf.uapi.dev import Dev

PERIOD_NS = 60_000_000_000
"""Between two looks at a file system of which nothing is heard."""
_EARLY_NS = PERIOD_NS // 2  # who is awake anyway need not wake up again
_SOON_NS = 200_000_000  # after an error: ext4 counts it in a worker
_GAP_NS = 1_000_000_000  # between two questions while errors come
_START_SECONDS = 20.0  # for the first answers


@dataclass
class _Known:
    """A superblock; times are CLOCK_MONOTONIC in ns, 0 for never.

    ``routine``: there is no reason to ask but that it was not asked for a while.
    """

    superblock: Superblock
    signs: Signs
    answer: Answer | None = None
    state: FilesystemState | None = None
    asked_ns: int = 0
    due_ns: int = 0
    routine: bool = False
    number: int = 0  # of the question that is open, 0 without one
    late: bool = False  # its answer

    def is_due(self, time_ns: int, *, routine: bool = False) -> None:
        """Have it asked then."""
        self.due_ns, self.routine = time_ns, routine


class StateWatch(Closing):
    """Has file systems asked by processes that can hang in our place, and end with the answers.

    ``not_seen`` says of a driver what its events do not have.
    """

    def __init__(self, not_seen: Callable[[str], tuple[str, ...]] = lambda _: ()) -> None:
        self._not_seen = not_seen
        self._asking = Asking()
        self._timer = Timer()
        self._known: dict[Dev, _Known] = {}
        self._past: dict[Dev, FilesystemState] = {}  # of those that are not mounted now
        self._number = 0
        self._changes: list[StateChange] = []
        self._news: list[str] = []
        self._refused = False
        self._tick_ns = time.monotonic_ns() + PERIOD_NS

    def filenos(self) -> list[int]:
        """Readable when `pump` has something to do."""
        return [self._asking.fileno(), self._timer.fileno()]

    def needs_right(self) -> bool:
        """Whether one can only be asked with CAP_DAC_READ_SEARCH."""
        asked = (question_of(known.superblock, known.signs) for known in self._known.values())
        return any(isinstance(q, Question) and not may_read(q.path) for q in asked)

    # -- what is seen ----------------------------------------------------------------

    def see(self, superblocks: Iterable[Superblock], watched: Set[Dev]) -> None:
        """These are mounted; those in ``watched`` count, and what was not well before."""
        found = {
            each.dev: each for each in superblocks if each.dev in watched or self._was_bad(each.dev)
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
                known.superblock, known.signs = superblock, signs
                known.is_due(now)
        self.pump()

    def _was_bad(self, dev: Dev) -> bool:
        past = self._past.get(dev) or (self._known[dev].state if dev in self._known else None)
        return past is not None and not past.ok

    def touch(self, dev: Dev) -> None:
        """An error has been heard of it."""
        known = self._known.get(dev)
        if known and not known.due_ns:
            now = time.monotonic_ns()
            known.is_due(max(now + _SOON_NS, known.asked_ns + _GAP_NS))
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
        while lacks():
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return
            self.pump()

    def look_again(self) -> None:
        """Ask all once more, and wait for the answers: what was not heard of is found."""
        now = time.monotonic_ns()
        for known in self._known.values():
            known.is_due(now)
        self.pump()
        self._wait(lambda: any(known.number and not known.late for known in self._known.values()))

    def pump(self) -> None:
        """Take answers in, ask what is due."""
        self._collect()
        now = time.monotonic_ns()
        if now >= self._tick_ns - _EARLY_NS:
            self._tick_ns = now + PERIOD_NS
            for known in self._known.values():
                self._look_after_a_while(known, now)
        due = [k for k in self._known.values() if k.due_ns and now >= k.due_ns and not k.number]
        if due:
            self._ask(due, now)
        self._set_timer()

    def _look_after_a_while(self, known: _Known, now: int) -> None:
        signs = read_signs(known.superblock)
        if signs != known.signs:
            known.is_due(now)
        elif signs.driver != "ext4" and not known.due_ns:
            known.is_due(now, routine=True)

    def _ask(self, due: Iterable[_Known], now: int) -> None:
        asked: list[Asked] = []
        routine = True
        for known in due:
            known.signs = read_signs(known.superblock)
            known.asked_ns, known.due_ns = now, 0
            question = question_of(known.superblock, known.signs)
            if not isinstance(question, Question):
                known.answer = question
                self._judge(known)
                continue
            self._number += 1
            expected = known.answer if known.state and not known.late else None
            asked.append(Asked(self._number, question, expected))
            known.number, known.late = self._number, False
            routine &= known.routine
        if not asked:
            return
        try:
            self._asking.ask(asked, routine=routine)
            self._refused = False
        except OSError as error:  # a limit on processes
            self._give_up(error, now)

    def _give_up(self, error: OSError, now: int) -> None:
        """Keep what is known, and try again later."""
        for known in self._known.values():
            if known.number and known.asked_ns == now:
                known.number = 0
                known.is_due(now + PERIOD_NS)
                if known.state is None:
                    self._judge(known)
        if not self._refused:
            self._news.append(f"no process to ask for states ({error.strerror}); raise its limit")
        self._refused = True

    def _collect(self) -> None:
        numbers = {known.number: known for known in self._known.values() if known.number}
        for number, answer in self._asking.collect():
            if known := numbers.get(number):
                known.answer, known.late = answer, answer is None
                known.number = number if self._asking.waits_for(number) else 0
                self._judge(known)

    def _judge(self, known: _Known) -> None:
        state = state_of(known.superblock, known.signs, known.answer)
        before = known.state or self._past.pop(state.dev, None)
        is_first = known.state is None
        known.state = state
        if is_first or before is None or _essence(before) != _essence(state):
            then = before.condition if before else None
            missing = self._not_seen(known.signs.driver)
            self._changes.append(StateChange(time.time_ns(), state, then, missing))

    def _set_timer(self) -> None:
        due = [known.due_ns for known in self._known.values() if known.due_ns and not known.number]
        late_ns = self._asking.late_ns()
        self._timer.set(min([self._tick_ns, *due, *([late_ns] if late_ns else [])]))

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
        """End what asks; what a disk holds is left to it."""
        self._asking.close()
        self._timer.close()


def _essence(state: FilesystemState) -> tuple[object, ...]:
    """What makes another state of it: one more error on record does not, that is an event."""
    return state.condition, state.first, state.sick, bool(state.errors), state.reason
