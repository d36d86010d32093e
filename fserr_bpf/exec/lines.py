"""Lines on standard error, which is the client's: who does not read it must not stop us."""

from __future__ import annotations

import os
import queue
import select
import threading

from fserr_bpf.closing import Closing
from fserr_bpf.outputs.text import printable

MOST_WAITING = 1000
"""Lines that wait for standard error; what comes when it takes no more is counted, and told."""
_END_SECONDS = 1.0
_STDERR = 2


class ErrorLines(Closing):
    """Writes lines in a thread, which waits for standard error if it must."""

    def __init__(self) -> None:
        self._waiting = queue.Queue[str | None](MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lost = 0  # in all

    def write(self, line: str) -> None:
        """One line, in which characters that are not printable are escaped; never waits."""
        self._put(f"fserr-bpf: {printable(line)}\n")

    def write_text(self, text: str) -> None:
        """Lines as they are, together."""
        self._put(text)

    def close(self) -> None:
        """Write what waits, or give it up after a second."""
        if self._thread is None:
            return
        try:
            self._waiting.put(None, timeout=_END_SECONDS)
        except queue.Full:
            return
        self._thread.join(_END_SECONDS)

    def _put(self, text: str) -> None:
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, daemon=True)
                thread.start()
                self._thread = thread
            self._waiting.put_nowait(text)
        except (queue.Full, RuntimeError):  # no room, or no more threads
            self._lost += 1

    def _run(self) -> None:
        told = 0
        while (text := self._waiting.get()) is not None:
            if not _written(text):
                return
            lost = self._lost
            if lost > told:
                _written(f"fserr-bpf: {lost - told} lines lost: standard error took none\n")
                told = lost


def _written(text: str) -> bool:
    """Whether it could be written; not if standard error is closed, or its reader is gone."""
    data = text.encode(errors="backslashreplace")
    while data:
        try:
            data = data[os.write(_STDERR, data) :]
        except BlockingIOError:  # the client does not want to wait for it
            poll = select.poll()
            poll.register(_STDERR, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True
