"""The notification queue against a naive model written from the kernel's rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from fserr_bpf.model.event import Event, FileHandle, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.group import NotificationQueue, Result


@dataclass
class NaiveQueue:
    """One list, searched from end to end, as ``fsnotify_insert_event()`` reads."""

    max_events: int | None
    q: list[list[object]] = field(default_factory=list)

    def insert(self, fsid: Fsid, task: int, event: FsErrorEvent, count: int) -> Result:
        if self.max_events is not None and not len(self.q) < self.max_events:
            if not any(item[0] == "overflow" for item in self.q):
                self.q.append(["overflow"])
            return Result.OVERFLOW
        for item in self.q:
            if item[0] == "error" and item[1] == (fsid, task):
                assert isinstance(item[3], int)
                item[3] = (item[3] + count) % 2**32
                return Result.MERGED
        self.q.append(["error", (fsid, task), event, count % 2**32])
        return Result.QUEUED

    def read(self) -> Event:
        item = self.q.pop(0)
        if item[0] == "overflow":
            return OverflowEvent()
        assert isinstance(item[2], FsErrorEvent)
        return item[2]._replace(error_count=item[3])  # type: ignore[arg-type]


inserts = st.tuples(
    st.builds(Fsid, st.integers(0, 1), st.just(0)),
    st.integers(1, 3),
    st.sampled_from((1, 1, 1, 2, 2**31)),
)
steps = st.lists(st.none() | inserts | inserts, max_size=60)


@settings(max_examples=300)
@given(st.none() | st.integers(0, 5), steps)
def test_queue_behaves_as_the_naive_model(
    max_events: int | None, script: list[tuple[Fsid, int, int] | None]
) -> None:
    queue, naive = NotificationQueue(max_events), NaiveQueue(max_events)
    results = dict.fromkeys(Result, 0)
    for number, step in enumerate(script):
        if step is None:
            first = queue.peek()
            assert (first is None) == (not naive.q)
            if naive.q:
                assert first == naive.read()
                assert queue.pop() == first
        else:
            fsid, task, count = step
            event = FsErrorEvent(fsid, FileHandle(1, bytes([number] * 8)), number, 1, task)
            built: list[FsErrorEvent] = []

            def make(
                event: FsErrorEvent = event, built: list[FsErrorEvent] = built
            ) -> FsErrorEvent:
                built.append(event)
                return event

            result = queue.insert(fsid, task, make, count)
            assert result is naive.insert(fsid, task, event, count)
            assert len(built) == (result is Result.QUEUED)
            results[result] += count
        assert len(queue) == len(naive.q)
    assert queue.inserted == results[Result.QUEUED]
    assert queue.merged == results[Result.MERGED]
    assert queue.overflowed == results[Result.OVERFLOW]
    while naive.q:
        assert queue.pop() == naive.read()
    assert queue.peek() is None
