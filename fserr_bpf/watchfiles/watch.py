"""From an event of a file's data to its path, to the globs, to the output and the hook."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fserr_bpf.helper.paths import Path
from fserr_bpf.hooks.hook import Hooks
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.outputs.sink import PIPE_BUF, Sink
from fserr_bpf.watchfiles.fileerror import FileError, file_error
from fserr_bpf.watchfiles.globs import Glob
from fserr_bpf.watchfiles.source import FileErrors

DEADLINE_SECONDS = 5.0
"""How long a path is waited for."""
_LINES_KEPT = 16384
_REPORTED_MOST = 4096  # files without a path that get a message
_NAMED = ("whole", "deleted")


class Counts(NamedTuple):
    """Errors, but for ``events`` and ``unwritten``, which are events."""

    matched: int = 0
    events: int = 0
    elsewhere: int = 0
    unknown: int = 0
    unwritten: int = 0

    def __str__(self) -> str:
        seen = self.matched + self.elsewhere + self.unknown
        lines = f"; {self.unwritten} lines not written" if self.unwritten else ""
        return (
            f"{seen} errors of files seen = {self.matched} matched in {self.events} events + "
            f"{self.elsewhere} elsewhere + {self.unknown} of unknown path{lines}"
        )


class _Asked(NamedTuple):
    """``due`` is CLOCK_MONOTONIC in seconds."""

    event: FsErrorEvent
    due: float


class Watch:
    """One run of the command, but for its signals. Nothing in it waits but ``wait()``.

    ``form`` makes a line of an error, with its end.
    """

    def __init__(
        self,
        globs: Sequence[Glob],
        source: FileErrors,
        hooks: Hooks | None,
        sink: Sink,
        form: Callable[[FileError], bytes],
    ) -> None:
        self._globs = globs
        self._source = source
        self._hooks = hooks
        self._sink = sink
        self._form = form
        self._asked: dict[int, _Asked] = {}
        self._lines = deque[bytes]()
        self._news: list[str] = []
        self._reported: set[tuple[object, ...]] = set()
        self._lost = 0
        self._stopped = False
        self.counts = Counts()

    # -- events ------------------------------------------------------------------------

    def step(self) -> None:
        """Take everything that is there, and write what the reader has room for."""
        if self._stopped:
            self._source.collect()
        else:
            for event in self._source.events():
                self._see(event)
            self._note_losses()
        for ticket, found in self._source.names.located():
            if asked := self._asked.pop(ticket, None):
                self._found(asked.event, found)
        now = time.monotonic()
        for ticket in [t for t, asked in self._asked.items() if asked.due <= now]:
            self._give_up(self._asked.pop(ticket).event, "lookup timed out")
        if self._hooks:
            self._hooks.collect()
            if self._stopped and not self._asked:
                self._hooks.stop()
        self._write()

    def _see(self, event: FsErrorEvent) -> None:
        origin = event.origin
        assert origin is not None
        detail = origin.detail
        assert detail is not None
        if detail.name_state in _NAMED:
            self._place(event, f"/{detail.name}", deleted=detail.name_state == "deleted")
            return
        below = list(self._source.marks.tops(origin.dev))
        ticket = self._source.names.locate(event, below)
        if ticket is None:
            self._give_up(event, "no lookup is possible")
        else:
            self._asked[ticket] = _Asked(event, time.monotonic() + DEADLINE_SECONDS)

    def _found(self, event: FsErrorEvent, found: Path) -> None:
        assert event.origin is not None
        views = self._source.marks.views(event.origin.dev)
        name = views.name_at(found.path, event.origin.dev) if found.path else ""
        if name:
            self._place(event, name, deleted=False)
        else:
            self._give_up(event, str(found.state))

    def _place(self, event: FsErrorEvent, name: str, *, deleted: bool) -> None:
        assert event.origin is not None
        dev = event.origin.dev
        for path, mount in self._source.marks.views(dev).paths_of(name, dev):
            for glob in self._globs:
                if glob.matches(path):
                    point = mount.mount_point
                    self._matched(
                        file_error(event, path, deleted=deleted, glob=glob.text, mount_point=point)
                    )
                    return
        self._count(elsewhere=event.error_count)

    def _matched(self, error: FileError) -> None:
        self._count(matched=error.error_count, events=1)
        if len(self._lines) < _LINES_KEPT:
            self._lines.append(self._form(error))
        else:
            self._count(unwritten=1)
        if self._hooks:
            self._hooks.add(error)

    def _give_up(self, event: FsErrorEvent, why: str) -> None:
        origin = event.origin
        assert origin is not None
        self._count(unknown=event.error_count)
        file = (origin.dev, event.handle)
        if file not in self._reported and len(self._reported) < _REPORTED_MOST:
            self._reported.add(file)
            what = f"{errno_name(event.error)} of ino {origin.ino} on {origin.device}"
            self._news.append(f"{what}: path unknown ({why}); hook not run")

    def _note_losses(self) -> None:
        lost = self._source.lost()
        if lost > self._lost:
            self._news.append(
                f"lost {lost - self._lost} errors of unknown files: the ring was full"
            )
            self._lost = lost

    def _count(self, **more: int) -> None:
        now = self.counts._asdict()
        self.counts = self.counts._replace(**{key: now[key] + n for key, n in more.items()})

    # -- the output --------------------------------------------------------------------

    def _write(self) -> None:
        while self._lines and self._sink.ready():
            lines: list[bytes] = []
            size = 0
            while self._lines and (not lines or size + len(self._lines[0]) <= PIPE_BUF):
                lines.append(self._lines.popleft())
                size += len(lines[-1])
            try:
                self._sink.write(lines)
            except BaseException:
                self._lines.extendleft(reversed(lines))
                raise

    def unwritten(self) -> list[bytes]:
        """The lines that could not be written, for another place."""
        return list(self._lines)

    # -- waiting and the end -------------------------------------------------------------

    def wait(self, others: Mapping[int, int]) -> frozenset[int]:
        """Block until ``step()`` has something to do or one of ``others`` is ready.

        ``others`` are descriptors with their poll(2) masks. Raises OutputError when the
        reader has gone.
        """
        masks = self._sink.masks(waiting=bool(self._lines))
        fds = dict(others) | masks
        if self._hooks:
            fds[self._hooks.fileno()] = select.POLLIN
        due = [asked.due for asked in self._asked.values()]
        if self._hooks and self._hooks.due is not None:
            due.append(self._hooks.due)
        timeout = max(min(due) - time.monotonic(), 0) if due else None
        ready = self._source.wait(timeout, fds, events=not self._stopped)
        if ready & masks.keys() and not self._lines:
            raise self._sink.reader_gone()
        return ready & others.keys()

    def stop(self) -> None:
        """No more events after those that are there now; hooks that wait do not begin."""
        self.step()
        self._stopped = True
        self.step()

    def is_busy(self) -> bool:
        """Whether a path or the end of a hook is waited for."""
        return bool(self._asked) or bool(self._hooks and self._hooks.running)

    def news(self) -> list[str]:
        """Messages since the last call."""
        news, self._news = self._news, []
        return self._source.news() + news + (self._hooks.news() if self._hooks else [])
