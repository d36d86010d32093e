"""The notification queue against a naive model written from the kernel's rules.

In the model an event that was taken and is put back never left: what joined the queue in the
meantime and could have merged with it is a part of it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from fserr_bpf.model.event import (
    Event,
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.model.queue import NotificationQueue, Queued, Result

ONDIR, RENAME = 0x40000000, 0x10000000


class Item(NamedTuple):
    """A queued event: what it merges by, its first report, all reports' errors."""

    key: Hashable
    event: Event
    reports: tuple[int, ...] = ()

    def read(self) -> Event:
        if isinstance(self.event, FsErrorEvent):
            return self.event._replace(error_count=sum(self.reports) % 2**32)
        return self.event

    def joined(self, later: Item) -> Item:
        event = self.event
        if isinstance(event, OtherEvent) and isinstance(later.event, OtherEvent):
            event = event._replace(mask=event.mask | later.event.mask)
        return Item(self.key, event, self.reports + later.reports)


@dataclass
class NaiveQueue:
    """One list, searched from end to end, as ``fsnotify_insert_event()`` reads."""

    max_events: int | None
    items: list[Item] = field(default_factory=list)
    read: list[Item] = field(default_factory=list)
    overflowed: int = 0

    def overflow(self) -> None:
        if not any(item.key == "overflow" for item in self.items):
            self.items.append(Item("overflow", OverflowEvent()))

    def insert(self, new: Item) -> Result:
        if self.max_events is not None and not len(self.items) < self.max_events:
            self.overflowed += sum(new.reports)
            self.overflow()
            return Result.OVERFLOW
        for at, item in enumerate(self.items):
            if item.key is not None and item.key == new.key:
                self.items[at] = item.joined(new)
                return Result.MERGED
        self.items.append(new)
        return Result.QUEUED

    def take(self) -> Item:
        self.read.append(self.items.pop(0))
        return self.read[-1]

    def put_back(self, count: int) -> None:
        line = self.read[len(self.read) - count :] + self.items
        del self.read[len(self.read) - count :]
        self.items = []
        for new in line:
            same = [at for at, i in enumerate(self.items) if i.key is not None and i.key == new.key]
            if same:
                self.items[same[0]] = self.items[same[0]].joined(new)
            else:
                self.items.append(new)

    def counts(self) -> tuple[int, int, int, int, int]:
        """inserted, merged, overflowed, delivered, delivered_merged."""
        (events, errors), (read, errors_read) = (
            (len([item for item in items if item.reports]), sum(sum(i.reports) for i in items))
            for items in (self.items + self.read, self.read)
        )
        return events, errors - events, self.overflowed, read, errors_read - read


class Error(NamedTuple):
    """``number`` errors of a task."""

    fsid: Fsid
    task: int
    number: int


class Step(NamedTuple):
    """``take`` one, ``pop`` one for good, ``put back`` so many, ``overflow``."""

    what: str
    number: int = 0


errors = st.builds(
    Error,
    st.builds(Fsid, st.integers(0, 1), st.just(0)),
    st.integers(1, 3),
    st.sampled_from((1, 1, 1, 2, 2**31)),
)
others = st.builds(
    OtherEvent,
    mask=st.sampled_from((0x2, 0x8, 0x100, ONDIR | 0x100, ONDIR | 0x2, RENAME, RENAME | 0x2)),
    pid=st.sampled_from((1, 1, 2)),
    fd=st.sampled_from((-1, -1, 5)),
    extra=st.sampled_from(((), (), (InfoRecord(2, 0, b"name"),))),
)
moves = st.builds(Step, st.sampled_from(("take", "take", "take", "take", "pop", "overflow")))
returns = st.builds(Step, st.just("put back"), st.integers(1, 4))
steps = st.lists(errors | others | moves | returns, max_size=60) | st.lists(
    others | moves | returns, min_size=20, max_size=40
)


@settings(max_examples=200)
@given(st.none() | st.integers(0, 5), steps)
def test_queue_behaves_as_the_naive_model(
    max_events: int | None, script: list[Error | OtherEvent | Step]
) -> None:
    queue, naive = NotificationQueue(max_events), NaiveQueue(max_events)
    taken: list[Queued] = []
    for number, step in enumerate(script):
        if isinstance(step, Error):
            insert(queue, naive, step, number)
        elif isinstance(step, OtherEvent):
            key = None if step.mask & RENAME else (step.pid, step.fd, step.extra, step.mask & ONDIR)
            assert queue.insert_other(step) is naive.insert(Item(key, step))
        elif step.what == "overflow":
            queue.overflow()
            naive.overflow()
        elif step.what == "put back":
            count = min(step.number, len(taken))
            queue.put_back(taken[len(taken) - count :])
            naive.put_back(count)
            del taken[len(taken) - count :]
        elif naive.items:
            first, expected = queue.peek(), naive.take().read()
            assert first == expected
            if step.what == "pop":
                assert queue.pop() == expected
                taken.clear()  # what was popped later is read: nothing before it comes back
            else:
                taken.append(queue.take())
                assert taken[-1].event == expected
        else:
            assert queue.peek() is None
        assert len(queue) == len(naive.items)
        counts = (queue.inserted, queue.merged, queue.overflowed)
        assert (*counts, queue.delivered, queue.delivered_merged) == naive.counts()
    while naive.items:
        assert queue.pop() == naive.take().read()
    assert queue.peek() is None


def insert(queue: NotificationQueue, naive: NaiveQueue, error: Error, number: int) -> None:
    event = FsErrorEvent(error.fsid, FileHandle(1, bytes([number] * 8)), number, 1, error.task)
    built: list[FsErrorEvent] = []

    def make() -> FsErrorEvent:
        built.append(event)
        return event

    result = queue.insert(error.fsid, error.task, make, error.number)
    assert result is naive.insert(Item((error.fsid, error.task), event, (error.number,)))
    assert len(built) == (result is Result.QUEUED)
