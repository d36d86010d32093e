"""What a finding is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How much a finding matters. A note is how it is on this host, a problem wants mending."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """``subject`` is a part of the host, a stream or a mount point; ``remedy`` an imperative."""

    level: Level
    subject: str
    finding: str
    remedy: str = ""
