"""How a report's cells came to be."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Run(NamedTuple):
    """One run of ``fserr-bpf compare``.

    ``command`` are the words that were typed, ``host_release`` is uname's, ``started`` in
    UTC, ``seconds`` the duration, ``version`` that of fserr-bpf.
    """

    command: tuple[str, ...]
    host_release: str
    started: datetime
    seconds: float
    version: str
