"""The three streams of events."""

from __future__ import annotations

from enum import StrEnum


class Stream(StrEnum):
    """Which errors become events (``docs/streams.md``)."""

    NATIVE = "native"
    FSERROR = "fserror"
    PROPOSED = "proposed"
