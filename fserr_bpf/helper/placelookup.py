"""Places that the probe did not see, asked of the helper after the fact.

An answer is waited for a second at most, and nothing more is asked while one is overdue.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fserr_bpf.closing import Closing
from fserr_bpf.helper.client import Helper
from fserr_bpf.helper.questions import Kind, about
from fserr_bpf.kernel.timer import Timer
from fserr_bpf.marks.rules import Chain, Place
from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.inode import InodeId

DEADLINE_NS = 1_000_000_000
_Question = tuple[Dev, FileHandle]


class Places(Closing):
    """Asks for places; every ticket is answered, with None at the latest when it is due.

    Call ``helper.wait_until_ready()`` before anything else, but as late as can be. ``collect()``
    has something to do when ``fileno()`` is readable, or ``helper`` has received something.
    ``news`` has, in words, what went wrong.
    """

    def __init__(self, helper: Helper) -> None:
        self.news: list[str] = []
        self._helper = helper
        self._ended = False
        self._open: dict[_Question, int] = {}
        self._due: dict[int, int] = {}  # when the answer is overdue, oldest first
        self._overdue: set[int] = set()
        self._timer = Timer()

    @property
    def overdue(self) -> bool:
        """Whether an answer should have come; nothing is asked meanwhile."""
        return bool(self._overdue)

    def fileno(self) -> int:
        """The descriptor to poll for POLLIN: a timer."""
        return self._timer.fileno()

    def ask(self, mount_point: str, dev: Dev, handle: FileHandle) -> int | None:
        """The ticket of the answer, None where nobody can be asked.

        A question that is open is asked once. ``dev`` is (major, minor) of the superblock.
        """
        question = (dev, handle)
        if question in self._open:
            return self._open[question]
        if self.overdue:
            return None
        ticket = self._helper.ask(Kind.PLACE, about(mount_point, dev, handle))
        if ticket is None:
            return None
        self._open[question] = ticket
        self._due[ticket] = time.monotonic_ns() + DEADLINE_NS
        self._set_timer()
        return ticket

    def collect(self) -> Mapping[int, Place | None]:
        """The answers since the last call, by ticket."""
        answers: dict[int, Place | None] = {}
        for answer in self._helper.answers(Kind.PLACE):
            self._overdue.discard(answer.number)
            if answer.number in self._due:
                answers[answer.number] = _place(answer.found)
        now = time.monotonic_ns()
        for ticket, due in self._due.items():
            if ticket not in answers and (due <= now or self._helper.ended):
                answers[ticket] = None
                self._overdue.add(ticket)
        if self._helper.ended:
            self._note_the_end()
        for ticket in answers:
            del self._due[ticket]
        self._open = {q: ticket for q, ticket in self._open.items() if ticket in self._due}
        if answers:
            self._set_timer()
        return answers

    def _note_the_end(self) -> None:
        """Whoever ended the helper: what is open will not be answered."""
        self._overdue.clear()
        if not self._ended:
            self._ended = True
            self.news.append(
                "the helper process has ended: errors without a location from the probe are dropped"
            )

    def _set_timer(self) -> None:
        self._timer.set(next(iter(self._due.values()), 0))

    def close(self) -> None:
        """Give the timer back; the helper is not ended."""
        self._timer.close()


def _place(found: list[Any] | None) -> Place | None:
    """A place as JSON has it: named tuples are lists there."""
    if found is None:
        return None
    chains, complete = found
    return Place(
        tuple(Chain(tuple(InodeId(*a) for a in above), whole) for above, whole in chains),
        complete,
    )
