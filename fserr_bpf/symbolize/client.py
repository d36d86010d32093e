"""Places of portable addresses, asked of a worker that may fail without harm."""

from __future__ import annotations

import json
import os
import select
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fserr_bpf.children.spawn import Child, spawn
from fserr_bpf.closing import Closing
from fserr_bpf.model.event import Address
from fserr_bpf.symbolize.place import Frame, Place
from fserr_bpf.symbolize.store import default_folder

_PATIENCE = 120.0  # seconds; the worker's own bound of CPU time comes first
_PATIENCE_WITH_DOWNLOAD = 900.0
_MAX_WAITING = 1000
_STANDARD_ERROR = 2

GAVE_UP = "the debug file needs more time or memory than it may have"
"""The reason when the worker has ended, or does not answer."""

_DEBUGINFOD_URLS = "DEBUGINFOD_URLS"


class Symbolizer(Closing):
    """Looks up places in debug files, in another process.

    ``debug_dirs`` are searched before the usual folders, see ``docs/symbols.md``; ``cache``
    is the folder of the index, by default that of this user. The worker is started by the
    first address that is asked for. Nothing raises because an address has no symbol.
    """

    def __init__(
        self, debug_dirs: Sequence[str | Path] = (), cache: str | Path | None = None
    ) -> None:
        self._urls = os.environ.get(_DEBUGINFOD_URLS, "").split()
        self._settings = {
            "debug_dirs": [os.path.abspath(folder) for folder in debug_dirs],
            "urls": self._urls,
            "cache": os.path.abspath(cache or default_folder()),
        }
        self._answers: dict[Address, Place | None] = {}
        self._reasons: dict[Address, str] = {}
        self._waiting: deque[Address] = deque()
        self._worker: Child | None = None
        self._asked: Address | None = None
        self._deadline = 0.0

    def place(self, address: Address) -> Place | None:
        """What is at ``address``, None if that is unknown; waits for the answer.

        The wait is bounded by the worker's limits. Raises OSError if it cannot be started.
        """
        while address not in self._answers:
            if address != self._asked and address not in self._waiting:
                self._waiting.appendleft(address)
            self._step(wait=True)
        return self._answers[address]

    def known(self, address: Address) -> Place | None:
        """The same without waiting: None until it is known; asks for it the first time.

        Raises OSError if the worker cannot be started.
        """
        new = address not in self._answers and address != self._asked
        if new and address not in self._waiting and len(self._waiting) < _MAX_WAITING:
            self._waiting.append(address)
        self._step(wait=False)
        return self._answers.get(address)

    def reason(self, address: Address) -> str:
        """Why `place` gave None for ``address``, one line."""
        return self._reasons.get(address, "")

    def _step(self, *, wait: bool) -> None:
        """Take an answer in if there is one, then ask for what waits."""
        if self._asked is not None:
            self._take(self._deadline - time.monotonic() if wait else 0)
        if self._asked is None and self._waiting:
            self._ask(self._waiting.popleft())

    def _ask(self, address: Address) -> None:
        if self._worker is None:
            settings = json.dumps(self._settings)
            self._worker = spawn("fserr_bpf.symbolize.worker", settings, output=_STANDARD_ERROR)
        self._asked = address
        patience = _PATIENCE_WITH_DOWNLOAD if self._urls else _PATIENCE
        self._deadline = time.monotonic() + patience
        try:
            self._worker.channel.send({"address": address})
        except ConnectionError:
            self._give_up()

    def _take(self, seconds: float) -> None:
        assert self._worker is not None
        poll = select.poll()
        poll.register(self._worker.channel, select.POLLIN)
        if poll.poll(max(0, seconds) * 1000):
            try:
                answer = self._worker.channel.receive()
            except EOFError:
                self._give_up()
            else:
                self._keep(answer.get("place"), answer.get("why", ""))
        elif time.monotonic() > self._deadline:
            self._give_up()

    def _keep(self, place: list[Any] | None, why: str) -> None:
        assert self._asked is not None
        if place is None:
            self._reasons[self._asked] = why
            self._answers[self._asked] = None
        else:
            function, offset, frames, note = place
            self._answers[self._asked] = Place(
                function, offset, tuple(Frame(*frame) for frame in frames), note
            )
        self._asked = None

    def _give_up(self) -> None:
        """The worker has ended over the question, or takes too long."""
        self._end_worker()
        self._keep(None, GAVE_UP)

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def close(self) -> None:
        """End the worker."""
        self._end_worker()
