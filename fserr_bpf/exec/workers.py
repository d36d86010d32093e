"""The processes that do what may wait for ever, so that the supervisor does not.

Each does one job at a time. One is kept; while it is busy others are forked. A
worker is killed when the caller that it works for waits no more, and dies with the
supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NoReturn, Protocol

from fserr_bpf.children.channel import Channel, channel_pair
from fserr_bpf.children.inherited import keep_only
from fserr_bpf.closing import Closing
from fserr_bpf.errors import PrivilegeError
from fserr_bpf.exec.loop import Loop, Timer
from fserr_bpf.exec.markrequest import MarkAnswer, MarkJob
from fserr_bpf.kernel import procfs
from fserr_bpf.tasks.account import account_of
from fserr_bpf.tasks.credentials import be_called, end_with_parent

NAME = "fserr-worker"
"""What lists of processes show."""
KEPT = 1
"""Idle workers that stay."""
SHARE = 16
"""Workers that one user's calls have at once; further calls of that user wait for these."""
LOOK_AFTER_NS = 100_000_000
"""How often it is asked whether the callers of slow jobs still wait."""

_ENDING_SECONDS = 1.0

Done = Callable[[MarkAnswer], None]


class DoesMarks(Protocol):
    """Who does jobs."""

    def submit(
        self, job: MarkJob, descriptors: Sequence[int], waits: Callable[[], bool], done: Done
    ) -> None:
        """Do it some time, and call ``done`` in the loop, unless ``waits`` is false by then.

        ``descriptors`` are copied. Raises OSError if there can be no process for it.
        """


class _Task:
    """A job under way, and who is answerable for it."""

    def __init__(
        self, job: MarkJob, descriptors: Sequence[int], waits: Callable[[], bool], done: Done
    ) -> None:
        self.job, self.descriptors, self.waits, self.done = job, descriptors, waits, done

    @cached_property
    def account(self) -> int | None:
        """The user; None if the task is gone, or cannot be seen."""
        try:
            return account_of(self.job.tid)
        except (OSError, PrivilegeError):
            return None


class _Worker:
    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid, self.channel = pid, channel
        self.task: _Task | None = None


class Workers(Closing):
    """``work(channel)`` is what each does in its own process, with no other descriptors than
    ``kept``, the channel's, and /dev/null as 0, 1 and 2.

    Raises OSError if the first cannot be started.
    """

    def __init__(
        self, loop: Loop, work: Callable[[Channel], NoReturn], kept: Sequence[int]
    ) -> None:
        self._loop, self._work, self._kept = loop, work, kept
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}
        self._queue: deque[_Task] = deque()
        self._unreaped: set[int] = set()
        self._timer: Timer | None = None
        self._idle.append(self._start())

    def submit(
        self, job: MarkJob, descriptors: Sequence[int], waits: Callable[[], bool], done: Done
    ) -> None:
        """See `DoesMarks`."""
        task = _Task(job, descriptors, waits, done)
        if self._has_share(task):
            self._begin(task)
        else:
            task.descriptors = [os.dup(descriptor) for descriptor in descriptors]
            self._queue.append(task)

    def _has_share(self, task: _Task) -> bool:
        """Whether its user may have one more worker; asked only if it begins to matter."""
        if len(self._busy) < SHARE:
            return True
        taken = Counter(w.task.account for w in self._busy.values() if w.task)
        return taken[task.account] < SHARE

    def _begin(self, task: _Task) -> None:
        while True:
            worker = self._idle.pop() if self._idle else self._start()
            try:
                worker.channel.send_descriptors(task.job.to_json(), task.descriptors)
                break
            except ConnectionError:  # it was killed
                self._end(worker)
        worker.task = task
        self._busy[worker.pid] = worker
        self._look_after_later()

    def _start(self) -> _Worker:
        ours, theirs = channel_pair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                end_with_parent(parent)
                be_called(NAME)
                gc.freeze()  # what was copied is not to be looked through
                keep_only(theirs.fileno(), procfs.directory(), *self._kept)
                self._work(theirs)
            finally:
                os._exit(1)
        theirs.close()
        worker = _Worker(pid, ours)
        self._loop.add(ours.fileno(), select.EPOLLIN, lambda _: self._answered(worker))
        return worker

    def _answered(self, worker: _Worker) -> None:
        task, worker.task = worker.task, None
        self._busy.pop(worker.pid, None)
        try:
            answer = MarkAnswer.from_json(worker.channel.receive(wait=False))
        except (EOFError, ValueError, KeyError, TypeError):  # it was killed
            answer = MarkAnswer(errno.EINTR)
            self._end(worker)
        else:
            if len(self._idle) < KEPT and not answer.last:
                self._idle.append(worker)
            else:
                self._end(worker)
        self._next()
        if task is not None:
            task.done(answer)

    def _next(self) -> None:
        """Begin what had to wait for this."""
        for task in list(self._queue):
            if task.waits() and not self._has_share(task):
                continue
            self._queue.remove(task)
            try:
                if task.waits():
                    self._begin(task)
            except OSError as error:
                task.done(MarkAnswer(error.errno or errno.EIO))
            finally:
                for descriptor in task.descriptors:
                    os.close(descriptor)

    def _end(self, worker: _Worker) -> None:
        """It is not used any more."""
        if worker in self._idle:
            self._idle.remove(worker)
        self._loop.remove(worker.channel.fileno())
        worker.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        self._unreaped.add(worker.pid)
        self._reap()
        self._look_after_later()

    def _reap(self) -> None:
        for pid in list(self._unreaped):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._unreaped.remove(pid)

    def _look_after_later(self) -> None:
        if self._timer is None:
            at = time.monotonic_ns() + LOOK_AFTER_NS
            self._timer = self._loop.call_at(at, self._look_after)

    def _look_after(self) -> None:
        """Give up what nobody waits for any more."""
        self._timer = None
        self._reap()
        for worker in list(self._busy.values()):
            if worker.task is not None and not worker.task.waits():
                del self._busy[worker.pid]
                self._end(worker)
        self._next()
        if self._busy or self._queue or self._unreaped:
            self._look_after_later()

    def close(self) -> None:
        """Kill all, and wait a moment for their end: one may hang in the kernel."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._queue:
            for descriptor in task.descriptors:
                os.close(descriptor)
        self._queue.clear()
        for worker in [*self._idle, *self._busy.values()]:
            self._end(worker)
        if self._timer is not None:
            self._timer.cancel()
        end = time.monotonic() + _ENDING_SECONDS
        while self._unreaped and time.monotonic() < end:
            self._reap()
            time.sleep(0.001)
