"""How long an answer is waited for: who waits for a processor is not late.

A busy machine must look like no broken disk, and a broken disk must not look like a busy
machine. So what counts is not the time but how often the process that asks is seen to sleep in
the kernel, by one who has to be scheduled himself to look.
"""

from __future__ import annotations

import os
import time

LOOK_SECONDS = 0.01
"""Between two looks, while nothing is answered."""
_LONGEST_SECONDS = 10.0  # whatever holds it


class Patience:
    """With a process that is to answer: ``seconds`` of being blocked."""

    def __init__(self, process: int, seconds: float) -> None:
        self._process = process
        self._left = max(round(seconds / LOOK_SECONDS), 1)
        self._until = time.monotonic() + max(_LONGEST_SECONDS, seconds)

    def is_over(self) -> bool:
        """To be asked after each `LOOK_SECONDS` without an answer."""
        if is_blocked(self._process):
            self._left -= 1
        return self._left <= 0 or time.monotonic() >= self._until


def is_blocked(process: int) -> bool:
    """Whether all threads of ``process`` sleep: none runs or waits for a processor.

    Source: the third field of ``/proc/PID/task/TID/stat``, proc(5).
    """
    folder = f"/proc/{process}/task"
    try:
        return all(_state(f"{folder}/{thread}/stat") != "R" for thread in os.listdir(folder))
    except OSError:  # one has ended meanwhile
        return False


def _state(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rpartition(")")[2].split()[0]
