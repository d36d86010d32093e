"""The pipe of an emulated group: what is unread is taken back, and nothing gets lost."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from functools import partial

import pytest

from fserr_bpf.codec.fanotify import decode, encode
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.pipe import SLOTS, PipeChannel
from fserr_bpf.model.event import FsErrorEvent, OtherEvent
from tests.live.channels import FSID, MS, Emulated, Reader, event, pipe_group, run_until
from tests.live.conftest import IN_LAB

pytestmark = pytest.mark.root
NO_HOLD = 0
# no test waits for it
LONG_HOLD = 1 << 60


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


class Here:
    """The client, in this process: the descriptor, non-blocking."""

    def __init__(self, group: Emulated) -> None:
        self.fd = group.client_end()
        os.set_blocking(self.fd, False)

    def read(self) -> FsErrorEvent | None:
        """The next event; None if there is none."""
        try:
            data = os.read(self.fd, 4096)
        except BlockingIOError:
            return None
        decoded, end = decode(data)
        assert isinstance(decoded, FsErrorEvent)
        assert end == len(data)
        return decoded

    def all(self) -> list[tuple[int, int]]:
        """(pid, error_count) of all events."""
        return [(read.pid, read.error_count) for read in iter(self.read, None)]


@pytest.fixture
def group(loop: Loop) -> Iterator[Emulated]:
    with pipe_group(loop, nonblocking=True, hold_ns=NO_HOLD) as group:
        yield group


def test_events_are_held_and_merge_meanwhile(loop: Loop) -> None:
    with pipe_group(loop, nonblocking=True, hold_ns=3 * MS) as group:
        reader = Here(group)
        start = time.monotonic_ns()
        group.pending.append(1)
        group.pump()
        for key in (1, 2, 1):
            # still in the ring when the time is over, which pumps first
            group.pending.append(key)
        assert reader.read() is None
        group.settle()
        assert time.monotonic_ns() - start >= 3 * MS
        assert reader.all() == [(1, 3), (2, 1)]


def test_the_time_of_each_event_is_its_own(loop: Loop) -> None:
    with pipe_group(loop, nonblocking=True, hold_ns=LONG_HOLD) as group:
        reader = Here(group)
        group.queue.insert_other(OtherEvent(0x100, 5, -1))
        group.pending.append(1)
        group.pump()
        group.queue.insert_other(OtherEvent(0x100, 6, -1))
        group.channel.fed()
        # the first is no error and waits for nobody; the last keeps its place behind one
        decoded, _ = decode(os.read(reader.fd, 4096))
        assert decoded == OtherEvent(0x100, 5, -1)
        assert reader.read() is None
        assert len(group.queue) == 2


def test_unread_events_merge_and_keep_their_places(group: Emulated) -> None:
    reader = Here(group)
    group.settled(1, 2, 3)
    assert reader.read() == event(1)
    group.settled(2, 1, 3, 2)
    assert reader.all() == [(2, 3), (3, 2), (1, 1)]
    assert (group.queue.inserted, group.queue.merged) == (4, 3)
    assert group.queue.delivered == 4


def test_as_many_as_fit_and_the_rest_when_there_is_room(group: Emulated) -> None:
    reader = Here(group)
    for key in range(1, SLOTS + 11):
        group.pending.append(key)
    group.pump()
    assert len(group.queue) == 10
    assert [read.pid for read in (reader.read(), reader.read()) if read] == [1, 2]
    run_until(group.loop, lambda: len(group.queue) == 8, "two more")
    # and all of them merge, wherever they are
    group.pending.extend(range(1, SLOTS + 11))
    group.pump()
    taken: list[tuple[int, int]] = []

    def done() -> bool:
        taken.extend(reader.all())
        return len(taken) == SLOTS + 10

    run_until(group.loop, done, "all events")
    again = [(key, 2) for key in range(3, SLOTS + 11)]
    assert taken == [*again, (1, 1), (2, 1)]


def test_the_queues_limit_counts_what_is_unread(loop: Loop) -> None:
    with pipe_group(loop, nonblocking=True, hold_ns=NO_HOLD) as group:
        group.queue.max_events = 5
        reader = Here(group)
        for key in range(1, 5):
            group.settled(key)
        group.settled(5, 6, 7)
        for key in range(5):
            assert reader.read() == event(key + 1)
        decoded, _ = decode(os.read(reader.fd, 4096))
        assert type(decoded).__name__ == "OverflowEvent"
        assert reader.read() is None
        group.settled(8)
        assert reader.all() == [(8, 1)]


def test_what_the_client_writes_does_no_harm(group: Emulated) -> None:
    reader = Here(group)
    group.settled(1, 2)
    os.write(reader.fd, b"response")
    group.settled(1)
    assert reader.all() == [(1, 2), (2, 1)]


def test_the_guardian_can_write_an_event(group: Emulated) -> None:
    reader = Here(group)
    assert isinstance(group.channel, PipeChannel)
    os.write(group.channel.write_end(), encode(event(9)))
    assert reader.all() == [(9, 1)]


def test_without_a_supervisor_the_client_waits(group: Emulated) -> None:
    reader = Here(group)
    group.settled(1)
    group.close()
    assert reader.all() == [(1, 1)]
    poller = select.poll()
    poller.register(reader.fd, select.POLLIN)
    assert poller.poll(0) == []
    assert group.gone == 0


def test_gone_is_told_once_also_while_a_reader_is_there_to_take_back(group: Emulated) -> None:
    reader = Here(group)
    group.settled(1)
    os.close(reader.fd)
    # before the loop could tell
    group.pending.append(2)
    group.pump()
    run_until(group.loop, lambda: group.gone > 0, "the end of the client")
    group.pending.append(3)
    group.channel.close()
    assert group.gone == 1


def test_nothing_is_left_open(loop: Loop) -> None:
    before = os.listdir("/proc/self/fd")
    with pipe_group(loop) as group:
        group.settled(1)
        group.settled(1)
    for _ in range(2):
        with pipe_group(loop) as group:
            os.close(group.client_end())
            run_until(loop, lambda group=group: group.gone == 1, "the end")  # type: ignore[misc]
    assert os.listdir("/proc/self/fd") == before


def test_every_event_comes_once_and_in_order_whoever_reads_meanwhile(loop: Loop) -> None:
    """A fast reader in another process against a writer that takes back all the time."""
    reports = 20_000 if IN_LAB else 100_000
    with pipe_group(loop, hold_ns=NO_HOLD) as group:
        end = group.client_end()
        with Reader(loop, lambda: read_in_order(end, reports)) as reader:
            os.close(end)
            sent = 0
            taken_back = 0

            def more() -> None:
                """Each report makes the channel take back what is unread."""
                nonlocal sent, taken_back
                for _ in range(min(50, reports - sent)):
                    delivered = group.queue.delivered
                    group.channel.before_insert()
                    taken_back += delivered - group.queue.delivered
                    group.queue.insert(FSID, sent, partial(event, sent))
                    group.channel.fed()
                    sent += 1
                if sent < reports:
                    loop.call_at(0, more)

            loop.call_at(0, more)
            assert reader.result() == f"{reports} events in order"
        assert taken_back > reports // 100, "nothing was ever unread: this has shown nothing"
        assert (group.queue.inserted, group.queue.merged) == (reports, 0)


def read_in_order(end: int, reports: int) -> str:
    """A message about the first event that is wrong, or that all are there."""
    for expected in range(reports):
        read, length = decode(data := os.read(end, 4096))
        if read != event(expected) or length != len(data):
            return f"event {expected} is {read}"
    return f"{reports} events in order"


def test_counts_are_exact_whoever_reads_meanwhile(loop: Loop) -> None:
    """The same with reports that merge: each is in exactly one event."""
    reports, keys = 20_000, 7
    with pipe_group(loop, hold_ns=NO_HOLD) as group:
        end = group.client_end()
        with Reader(loop, lambda: count_all(end, reports, keys)) as reader:
            os.close(end)
            sent = 0

            def more() -> None:
                nonlocal sent
                for _ in range(min(20, reports - sent)):
                    group.pending.append(sent % keys)
                    sent += 1
                    group.pump()
                if sent < reports:
                    loop.call_at(0, more)

            loop.call_at(0, more)
            assert reader.result() == str([len(range(key, reports, keys)) for key in range(keys)])
        assert group.queue.merged > 0


def count_all(end: int, reports: int, keys: int) -> str:
    """How many errors of each pid there were."""
    counts = [0] * keys
    while sum(counts) < reports:
        read, _ = decode(os.read(end, 4096))
        assert isinstance(read, FsErrorEvent)
        counts[read.pid] += read.error_count
    return str(counts)
