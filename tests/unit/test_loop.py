"""The supervisor's loop: who is called, when, and who no longer."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from fserr_bpf.exec.loop import Loop

MS = 1_000_000


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


class Pipes:
    """Pipes by number, closed at the end."""

    def __init__(self) -> None:
        self.open: set[int] = set()

    def make(self, *, ready: bool) -> tuple[int, int]:
        """Read and write end."""
        ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.open.update(ends)
        if ready:
            os.write(ends[1], b"x")
        return ends

    def close(self, fd: int) -> None:
        self.open.remove(fd)
        os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    for fd in list(pipes.open):
        pipes.close(fd)


def after(loop: Loop, milliseconds: int, callback: Callable[[], None]) -> None:
    loop.call_at(time.monotonic_ns() + milliseconds * MS, callback)


def then(loop: Loop, first: Callable[[], None]) -> Callable[[object], None]:
    """A callback that does ``first`` and ends the run."""

    def callback(_: object) -> None:
        first()
        loop.stop()

    return callback


def test_ready_is_called_while_it_is_ready(loop: Loop, pipes: Pipes) -> None:
    reader, writer = pipes.make(ready=True)
    called: list[int] = []

    def ready(events: int) -> None:
        called.append(events)
        if len(called) == 3:
            os.read(reader, 1)
            after(loop, 5, loop.stop)

    loop.add(reader, select.EPOLLIN, ready)
    loop.run()
    assert called == [select.EPOLLIN] * 3
    pipes.close(writer)
    ends: list[int] = []

    def ended(events: int) -> None:
        ends.append(events)
        loop.stop()

    loop.add(reader, 0, ended)
    loop.run()
    assert ends == [select.EPOLLHUP]


def test_a_second_add_replaces_mask_and_callback(loop: Loop, pipes: Pipes) -> None:
    _, writer = pipes.make(ready=False)
    first: list[int] = []
    second: list[int] = []
    loop.add(writer, select.EPOLLOUT, first.append)
    loop.add(writer, 0, second.append)
    after(loop, 5, loop.stop)
    loop.run()
    assert (first, second) == ([], [])
    loop.add(writer, select.EPOLLOUT, then(loop, lambda: second.append(1)))
    loop.run()
    assert (first, second) == ([], [1])


def test_any_may_be_removed_in_a_round_even_if_its_number_comes_back(
    loop: Loop, pipes: Pipes
) -> None:
    readers = [pipes.make(ready=True)[0] for _ in range(3)]
    called: list[str] = []

    def ready(_: int) -> None:
        """The first that is called takes all away, and the numbers of two come back."""
        called.append("old")
        for fd in readers:
            loop.remove(fd)
            pipes.close(fd)
        again = pipes.make(ready=True)
        assert set(again) <= set(readers)
        loop.add(again[0], select.EPOLLIN, then(loop, lambda: called.append("new")))

    for fd in readers:
        loop.add(fd, select.EPOLLIN, ready)
    loop.run()
    assert called == ["old", "new"]


def test_removed_is_not_called_and_stays_open(loop: Loop, pipes: Pipes) -> None:
    reader, _ = pipes.make(ready=True)
    called: list[int] = []
    loop.add(reader, select.EPOLLIN, called.append)
    loop.remove(reader)
    after(loop, 5, loop.stop)
    loop.run()
    assert called == []
    assert os.read(reader, 1) == b"x"
    with pytest.raises(KeyError):
        loop.remove(reader)


def test_times_come_in_order_never_early_and_not_when_cancelled(loop: Loop) -> None:
    called: list[tuple[str, bool]] = []
    start = time.monotonic_ns()

    def note(name: str, due: int) -> Callable[[], None]:
        return lambda: called.append((name, time.monotonic_ns() >= due))

    for name, due in (("c", start + 9 * MS), ("a", start - 1), ("b", start + 3 * MS)):
        loop.call_at(due, note(name, due))
    cancelled = loop.call_at(start + 2 * MS, note("cancelled", start))
    cancelled.cancel()
    cancelled.cancel()
    loop.call_at(start + 10 * MS, loop.stop)
    loop.run()
    assert called == [("a", True), ("b", True), ("c", True)]


def test_a_time_may_set_and_cancel_times(loop: Loop) -> None:
    called: list[str] = []
    now = time.monotonic_ns()

    def first() -> None:
        later.cancel()
        loop.call_at(now, lambda: called.append("past"))
        loop.call_at(now, loop.stop)

    loop.call_at(now, first)
    later = loop.call_at(now + 1, lambda: called.append("cancelled"))
    loop.run()
    assert called == ["past"]


def test_times_that_are_always_due_starve_nobody(loop: Loop, pipes: Pipes) -> None:
    reader, _ = pipes.make(ready=True)
    called: list[str] = []

    def again() -> None:
        called.append("time")
        loop.call_at(0, again)

    loop.call_at(0, again)
    loop.add(reader, select.EPOLLIN, then(loop, lambda: called.append("descriptor")))
    loop.run()
    assert called == ["time", "descriptor"]


def test_an_exception_leaves_run_which_can_go_on(loop: Loop, pipes: Pipes) -> None:
    reader, _ = pipes.make(ready=True)

    def fail(_: int) -> None:
        raise LookupError

    loop.add(reader, select.EPOLLIN, fail)
    with pytest.raises(LookupError):
        loop.run()
    loop.add(reader, select.EPOLLIN, lambda _: loop.stop())
    loop.run()


def test_it_sleeps_in_between(loop: Loop, pipes: Pipes) -> None:
    reader, _ = pipes.make(ready=False)
    loop.add(reader, select.EPOLLIN, lambda _: None)
    loop.call_at(time.monotonic_ns() + 20 * MS, lambda: None).cancel()
    after(loop, 50, loop.stop)
    polls = 0

    def count(_: object, event: str, called: object) -> None:
        nonlocal polls
        polls += event == "c_call" and getattr(called, "__name__", "") == "poll"

    sys.setprofile(count)
    try:
        loop.run()
    finally:
        sys.setprofile(None)
    assert polls == 1


def test_it_is_closed_on_exec() -> None:
    def epolls() -> set[int]:
        links = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                links[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
            except FileNotFoundError:  # that of listdir itself
                continue
        return {fd for fd, link in links.items() if "eventpoll" in link}

    before = epolls()
    with Loop():
        (made,) = epolls() - before
        assert not os.get_inheritable(made)
    assert epolls() == before
