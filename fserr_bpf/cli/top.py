"""``fserr-bpf top``: what is wrong where, in a terminal, while it happens.

The parts that need rich are imported when they are needed: no other command, nor
``--once --json``, should need it.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from fserr_bpf.cli.feeds import AttachedFeed, Feed, MonitorFeed
from fserr_bpf.cli.marks import add_mark_options, marks_of, visibility_of
from fserr_bpf.cli.options import add_paths, add_stream, seconds
from fserr_bpf.cli.ready import Readiness, add_ready
from fserr_bpf.cli.watching import (
    announce,
    check_rights,
    is_news,
    needed_capabilities,
    say,
    stop_signals,
)
from fserr_bpf.errors import FserrError, UsageError
from fserr_bpf.kernel.privileges import drop
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs.state import change_line
from fserr_bpf.service.statefile import FOLDER
from fserr_bpf.symbolize import Symbolizer
from fserr_bpf.top import report
from fserr_bpf.top.ages import Ages
from fserr_bpf.top.model import Board, Order, Snapshot
from fserr_bpf.top.places import Places

if TYPE_CHECKING:
    from fserr_bpf.top.screen import Screen

_NEWS_KEPT = 3
_QUIT = frozenset("qQ\x03\x04")  # also Ctrl-C and Ctrl-D
_ORDERS = {"c": Order.COUNT, "t": Order.TIME}
_PAUSE = frozenset("p ")
_SIGNALS = 64  # numbers to read at once


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "top",
        help="show file systems, places and events in a terminal",
        description="Show which file systems have errors, from which places of the kernel, and "
        "the last events, while they happen.",
    )
    add_paths(parser)
    add_mark_options(parser)
    add_stream(parser)
    parser.add_argument(
        "--detail", action="store_true", help="also show which file an event is about, as for run"
    )
    parser.add_argument(
        "--debug-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="with --detail: look for debug files here first; may be given several times",
    )
    parser.add_argument(
        "--interval",
        type=seconds,
        default=1.0,
        metavar="S",
        help="minimum seconds between two drawings; with --once: how long to watch (default: 1)",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="watch for the interval, or until a signal, and print what was seen",
    )
    parser.add_argument("--json", action="store_true", help="with --once: one object for programs")
    add_ready(parser)
    parser.add_argument(
        "--attach",
        nargs="?",
        const=os.path.join(FOLDER, "events.sock"),
        metavar="SOCKET",
        help="show what a service sees, by its socket (default: %(const)s), without probes and "
        "root; no marks and no stream go with it",
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until q, Ctrl-C, a signal or the end of ``--once``; returns 0.

    Raises FserrError subclasses.
    """
    if arguments.json and not arguments.once:
        raise UsageError("--json needs --once", "add --once, or use run --format json")
    if not arguments.json:
        _check_rich()
    if not arguments.once:
        _check_terminal()
    if arguments.attach is not None:
        return _attached(arguments)
    check_rights(None)
    with (
        Readiness(arguments.ready_fd) as readiness,
        stop_signals() as stop,
        Monitor(
            marks_of(arguments),
            arguments.stream,
            detail=arguments.detail,
            debug=arguments.debug,
            states=True,
            **visibility_of(arguments),
        ) as monitor,
        ExitStack() as stack,
    ):
        places = stack.enter_context(_places(arguments)) if arguments.detail else None
        watch = _Watch(MonitorFeed(monitor), places)
        if arguments.once:
            announce(monitor)
        if monitor.helper:
            monitor.helper.drop_rights(None, processes=monitor.looks_elsewhere)
        drop(None, needed_capabilities(monitor))
        readiness.signal()
        if arguments.once:
            _once(watch, stop, arguments)
        else:
            _Live(watch, arguments.interval).run(stop)
            say(str(monitor.statistics()))
    return 0


def _attached(arguments: argparse.Namespace) -> int:
    """As `run`, by the probes of a service."""
    if marks_of(arguments) or arguments.ignore or arguments.cgroup or arguments.container:
        raise UsageError("--attach shows what the service watches", "leave marks out")
    with (
        Readiness(arguments.ready_fd) as readiness,
        stop_signals() as stop,
        AttachedFeed(arguments.attach) as feed,
    ):
        readiness.signal()
        if arguments.once:
            _once(_Watch(feed, None), stop, arguments)
        else:
            _Live(_Watch(feed, None), arguments.interval).run(stop)
    return 0


def _places(arguments: argparse.Namespace) -> AbstractContextManager[Places | None]:
    """Without pyelftools functions keep the name that the kernel has for them."""
    if importlib.util.find_spec("elftools") is None:
        return nullcontext()
    return Places(Symbolizer(arguments.debug_dir))


def _check_rich() -> None:
    if importlib.util.find_spec("rich") is None:
        raise FserrError(
            "top needs rich", "run apt install python3-rich, or pip install 'fserr-bpf[top]'"
        )


def _check_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal", "use top --once, or run")


class _Watch:
    """A feed and all that has come from it."""

    def __init__(self, feed: Feed, places: Places | None) -> None:
        self.feed = feed
        self._places = places
        self.board = Board()
        self.blind = feed.blind()
        self._news = deque[str](maxlen=_NEWS_KEPT)
        self.board.watch(feed.file_systems())

    def take(self) -> bool:
        """Everything that waits now; False if that is nothing."""
        changed = False
        for event in self.feed.read_events():
            self.board.add(event)
            if self._places:
                self._places.see(event)
            changed = True
        news, changes = self.feed.news(), self.feed.changes()
        if news or changes:
            self.board.watch(self.feed.file_systems())
        self._news += [*news, *map(change_line, filter(is_news, changes))]
        return changed or bool(news) or bool(changes)

    def snapshot(self) -> Snapshot:
        """What has come so far; files that were found since are named in it."""
        states = {state.dev: state for state in self.feed.states()}
        snapshot = self.board.snapshot()._replace(states=states)
        if self._places:
            snapshot = self._places.named(snapshot)
        return snapshot._replace(
            events=tuple(
                self.feed.complete(event) if isinstance(event, FsErrorEvent) else event
                for event in snapshot.events
            )
        )

    def notices(self) -> list[str]:
        """Blind spots, losses and the last news, in words."""
        lines = [f"cannot see {', '.join(what)}: {why}" for why, what in self.blind.items()]
        lines += [f"{n} errors lost: {reason}" for reason, n in self.feed.lost().items() if n]
        lines += [f"{n} errors missed by {probe}" for probe, n in self.feed.missed().items()]
        return [*lines, *self._news]


def _once(watch: _Watch, stop: int, arguments: argparse.Namespace) -> None:
    """Watch for a while and print."""
    begin = time.monotonic()
    stopped: frozenset[int] = frozenset()
    while not stopped and (left := begin + arguments.interval - time.monotonic()) > 0:
        watch.take()
        stopped = watch.feed.wait(left, {stop: select.POLLIN})
    watch.take()
    snapshot, stream = watch.snapshot(), watch.feed.stream
    if arguments.json:
        seen = report.Seen(
            stream, time.monotonic() - begin, watch.feed.lost(), watch.feed.missed(), watch.blind
        )
        print(report.dumps(snapshot, seen))
        return
    from fserr_bpf.top import screen, view  # noqa: PLC0415

    frame = view.Frame(stream, Order.COUNT, paused=False, notices=watch.notices())
    screen.print_lines(lambda width: view.render(snapshot, frame, Ages(time.time_ns()), width))


class _Live:
    """The view in a terminal, and what its keys do."""

    def __init__(self, watch: _Watch, interval: float) -> None:
        self._watch = watch
        self._interval = interval
        self._order = Order.COUNT
        self._paused = False
        self._snapshot = watch.snapshot()
        self._notices = watch.notices()
        self._drawn = -math.inf  # CLOCK_MONOTONIC seconds
        self._due = -math.inf  # when to draw again

    def run(self, stop: int) -> None:
        """Until a key or a signal ends it."""
        from fserr_bpf.top.screen import Screen  # noqa: PLC0415

        with _resizes(), Screen() as screen:
            masks = {stop: select.POLLIN, screen.fileno(): select.POLLIN}
            while True:
                if self._watch.take() and not self._paused:
                    self._due = min(self._due, self._drawn + self._interval)
                left = self._due - time.monotonic()
                if left <= 0:
                    self._draw(screen)
                    left = self._due - time.monotonic()
                ready = self._watch.feed.wait(None if left == math.inf else max(left, 0), masks)
                if stop in ready:
                    if set(os.read(stop, _SIGNALS)) != {signal.SIGWINCH}:
                        return
                    self._due = -math.inf
                if screen.fileno() in ready:
                    keys = screen.keys()
                    if _QUIT & set(keys):
                        return
                    self._press(keys)

    def _press(self, keys: str) -> None:
        for key in keys.lower():
            self._order = _ORDERS.get(key, self._order)
            self._paused ^= key in _PAUSE
        self._due = -math.inf

    def _draw(self, screen: Screen) -> None:
        from fserr_bpf.top import view  # noqa: PLC0415

        if not self._paused:
            self._snapshot, self._notices = self._watch.snapshot(), self._watch.notices()
        frame = view.Frame(self._watch.feed.stream, self._order, self._paused, self._notices)
        ages, size = Ages(time.time_ns()), screen.size()
        screen.draw(view.render(self._snapshot, frame, ages, *size), size)
        self._drawn = time.monotonic()
        still = self._paused or screen.dumb
        self._due = math.inf if still else self._drawn + max(self._interval, ages.changes_in)


@contextmanager
def _resizes() -> Iterator[None]:
    """Let a change of the terminal's size into the descriptor of the stop signals."""
    previous = signal.signal(signal.SIGWINCH, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, previous)
