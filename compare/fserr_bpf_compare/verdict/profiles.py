"""What each kernel promises: which stream it sends itself, and how exactly it can be met.

Up to 6.19 the reporter itself queues the event: everything is determined, and the bytes
must be equal. Since 7.0 workers deliver (``fs/fserror.c``): which worker it is, and so
the pid and what merges, is left to chance. The patch series of this project defers too, but
in one queue and with the pid of the reporter: all is determined again.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.verdict.cells import Level

FROM_WORKERS = (7, 0)


class Profile(NamedTuple):
    """The stream to compare and its level; None, with the reason, if there is nothing to compare.

    ``deferred`` says that the kernel delivers some time after the error.
    """

    stream: Stream
    level: Level | None
    deferred: bool
    reason: str = ""


def sent(version: tuple[int, int], *, patched: bool) -> Stream:
    """The stream that a kernel sends; ``patched`` is one with the series in ``kernel-patch/``."""
    if patched:
        return Stream.PROPOSED
    return Stream.FSERROR if version >= FROM_WORKERS else Stream.NATIVE


def profile(version: tuple[int, int], stream: Stream | None, *, patched: bool = False) -> Profile:
    """The profile of a kernel; ``stream`` None takes the one that it sends.

    `Stream.NATIVE` is what a stock kernel sends, so each can be compared with it.
    """
    sends = sent(version, patched=patched)
    if stream in (None, sends) or (stream is Stream.NATIVE and not patched):
        level = Level.L2 if sends is Stream.FSERROR else Level.L0
        return Profile(stream or sends, level, deferred=sends is not Stream.NATIVE)
    reason = f"this kernel sends the stream {sends}: it has nothing to compare {stream} with"
    return Profile(stream, None, deferred=False, reason=reason)


def version_of(release: str) -> tuple[int, int]:
    """Major and minor number of a release as uname(2) gives it; ValueError for any other text."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None:
        raise ValueError(f"{release!r} is not a kernel release")
    return int(found[1]), int(found[2])
