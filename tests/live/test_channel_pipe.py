"""The pipe of an emulated group: what is unread is taken back, and nothing gets lost."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterator

import pytest

from fserr_bpf.codec.fanotify import Decoder, decode, encode
from fserr_bpf.model.event import FsErrorEvent, OtherEvent
from fserr_bpf.takeover.loop import Loop
from fserr_bpf.takeover.pipe import SLOTS, PipeChannel
from tests.live.channels import MS, Emulated, event, pipe_group, run_until
from tests.live.conftest import IN_LAB

pytestmark = pytest.mark.root
NO_HOLD = 0
# no test waits for it
LONG_HOLD = 1 << 60


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


class Reader:
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
        reader = Reader(group)
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
        reader = Reader(group)
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
    reader = Reader(group)
    group.settled(1, 2, 3)
    assert reader.read() == event(1)
    group.settled(2, 1, 3, 2)
    assert reader.all() == [(2, 3), (3, 2), (1, 1)]
    assert (group.queue.inserted, group.queue.merged) == (4, 3)
    assert group.queue.delivered == 4


def test_as_many_as_fit_and_the_rest_when_there_is_room(group: Emulated) -> None:
    reader = Reader(group)
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
        reader = Reader(group)
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
    reader = Reader(group)
    group.settled(1, 2)
    os.write(reader.fd, b"response")
    group.settled(1)
    assert reader.all() == [(1, 2), (2, 1)]


def test_the_guardian_can_write_an_event(group: Emulated) -> None:
    reader = Reader(group)
    assert isinstance(group.channel, PipeChannel)
    os.write(group.channel.write_end(), encode(event(9)))
    assert reader.all() == [(9, 1)]


def test_without_a_supervisor_the_client_waits(group: Emulated) -> None:
    reader = Reader(group)
    group.settled(1)
    group.close()
    assert reader.all() == [(1, 1)]
    poller = select.poll()
    poller.register(reader.fd, select.POLLIN)
    assert poller.poll(0) == []
    assert group.gone == 0


def test_gone_is_told_once_also_while_a_reader_is_there_to_take_back(group: Emulated) -> None:
    reader = Reader(group)
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
        output, into = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            read_all(end, into, reports)
        os.close(end)
        os.close(into)
        sent = 0
        taken_back = 0

        def more() -> None:
            """Each report makes the channel take back what is unread."""
            nonlocal sent, taken_back
            for _ in range(min(50, reports - sent)):
                delivered = group.queue.delivered
                group.channel.before_insert()
                taken_back += delivered - group.queue.delivered
                key, sent = sent, sent + 1
                group.queue.insert((0, 0), key, lambda key=key: event(key))  # type: ignore[arg-type, misc]
                group.channel.fed()
            if sent < reports:
                loop.call_at(0, more)

        loop.call_at(0, more)
        run_until(loop, lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the reader to end")
        with open(output, "rb") as file:
            assert file.read().decode() == f"{reports} events in order"
        assert taken_back > reports // 100, "nothing was ever unread: this has shown nothing"
        assert (group.queue.inserted, group.queue.merged) == (reports, 0)


def read_all(end: int, into: int, reports: int) -> None:
    """The reader: a message about the first that is wrong, or that all are there."""
    told = ""
    try:
        decoder = Decoder()
        expected = 0
        while expected < reports and not told:
            for read in decoder.feed(os.read(end, 4096)):
                assert isinstance(read, FsErrorEvent)
                if read.pid != expected or read.error_count != 1:
                    told = f"event {expected} is {read}"
                    break
                expected += 1
        os.write(into, (told or f"{reports} events in order").encode())
    finally:
        os._exit(0)


def test_counts_are_exact_whoever_reads_meanwhile(loop: Loop) -> None:
    """The same with reports that merge: each is in exactly one event."""
    reports, keys = 20_000, 7
    with pipe_group(loop, hold_ns=NO_HOLD) as group:
        end = group.client_end()
        output, into = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            count_all(end, into, reports)
        os.close(end)
        os.close(into)
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
        run_until(loop, lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the reader to end")
        with open(output, "rb") as file:
            counts = struct.unpack(f"<{keys}I", file.read())
        assert counts == tuple(len(range(key, reports, keys)) for key in range(keys))
        assert group.queue.merged > 0


def count_all(end: int, into: int, reports: int) -> None:
    """The reader: how many errors of each pid there were."""
    try:
        counts = [0] * 7
        while sum(counts) < reports:
            read, _ = decode(os.read(end, 4096))
            assert isinstance(read, FsErrorEvent)
            counts[read.pid] += read.error_count
        os.write(into, struct.pack("<7I", *counts))
    finally:
        os._exit(0)
