"""An output that runs a program: the runner of ``watch-files``, with its backlog and its limits."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import NamedTuple

from fserr_bpf.errors import FserrError
from fserr_bpf.hooks.hook import Held, Hooks, Intervals
from fserr_bpf.model.event import FsErrorEvent, Lost
from fserr_bpf.model.state import StateChange
from fserr_bpf.outputs.classes import class_of
from fserr_bpf.outputs.fields import fields_of
from fserr_bpf.outputs.schema import Message
from fserr_bpf.service.description import Hook
from fserr_bpf.service.output import OutputState
from fserr_bpf.uapi.dev import Dev


class HookMessage(NamedTuple):
    """A message, and how many errors it stands for by now."""

    message: Message
    error_count: int

    @property
    def name(self) -> str:
        """For messages about its hook."""
        return fields_of(self.message).get("FSERR_MOUNT_POINT", str(class_of(self.message)))

    @property
    def file(self) -> tuple[object, ...]:
        """An interval is for one class of one file system."""
        return class_of(self.message), _dev(self.message)

    @property
    def alike(self) -> tuple[object, ...]:
        """States stand for themselves: which comes last matters."""
        if isinstance(self.message, StateChange):
            return *self.file, self.message.state.condition
        error = self.message.error if isinstance(self.message, FsErrorEvent) else 0
        return *self.file, error

    def with_errors(self, error_count: int) -> HookMessage:
        """The same with another count."""
        return self._replace(error_count=error_count)

    def environment(self, held: Held) -> dict[str, str]:
        """docs/service.md has the table."""
        return fields_of(self.message) | {
            "FSERR_COUNT": str(self.error_count),
            "FSERR_HELD_COUNT": str(held.error_count),
        }


def _dev(message: Message) -> Dev | None:
    if isinstance(message, StateChange):
        return message.state.dev
    origin = message.origin if isinstance(message, FsErrorEvent) else None
    return origin.dev if origin else None


def _errors(message: Message) -> int:
    if isinstance(message, FsErrorEvent):
        return message.error_count
    return message.errors if isinstance(message, Lost) else 0


class HookOutput:
    """To be made before rights are given up: its process keeps them, for the program alone."""

    def __init__(self, hook: Hook) -> None:
        self.name = hook.name
        self._classes = hook.queueing.classes
        intervals = Intervals(file=hook.interval)
        command = f"exec {shlex.quote(hook.command)}"
        self._hooks: Hooks | None = Hooks(command, hook.timeout, hook.user, intervals)
        self._counts = self._hooks.counts()
        self._waiting = 0
        self._trouble = ""
        self._news: list[str] = []

    def fileno(self) -> int:
        """Readable when ``step()`` has something to do; -1 if it never has again."""
        return self._hooks.fileno() if self._hooks else -1

    @property
    def due(self) -> float | None:
        """When ``step()`` has something to do, CLOCK_MONOTONIC in seconds."""
        return self._hooks.due if self._hooks else None

    def give(self, message: Message) -> None:
        """Have the program run, if the message is of the classes."""
        if self._hooks and class_of(message) in self._classes:
            hooks = self._hooks
            self._try(lambda: hooks.add(HookMessage(message, _errors(message))))

    def step(self) -> None:
        """Take what has ended, begin what may."""
        if self._hooks:
            self._try(self._hooks.collect)

    def _try(self, do: Callable[[], None]) -> None:
        """Its process may have ended; that ends nothing else."""
        assert self._hooks is not None
        try:
            do()
        except FserrError as error:
            self._trouble = error.cause
            self._news.append(f"{self.name}: {error}")
        self._counts = self._hooks.counts()
        self._waiting = self._hooks.waiting + self._hooks.running
        self._news += [f"{self.name}: {line}" for line in self._hooks.news()]
        if self._trouble:
            self._hooks.close()
            self._hooks = None

    def news(self) -> list[str]:
        """Messages since the last call."""
        news, self._news = self._news, []
        return news

    def state(self) -> OutputState:
        """``sent`` are the runs that have ended, ``failures`` those that did so badly."""
        counts = self._counts
        failures = counts.failed + counts.timed_out
        return OutputState(
            self.name, self._waiting, counts.run, counts.dropped, failures, self._trouble
        )

    def close(self) -> None:
        """Begin no further run; what runs ends in its time."""
        if self._hooks:
            self._hooks.stop()
            self._news += [f"{self.name}: {line}" for line in self._hooks.news()]
            self._hooks.close()
            self._hooks = None
