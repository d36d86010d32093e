"""Starting tools and cleaning up without being interrupted half-way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM}


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Signals whose handlers raise wait until the end of the block.

    Processes that are started meanwhile inherit that; SIGKILL still ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
