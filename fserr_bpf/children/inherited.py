"""What a forked child lets go of: a pipe that it would hold never ends for its readers."""

from __future__ import annotations

import os

_STANDARD = (0, 1, 2)


def keep_only(*kept: int) -> None:
    """Close all descriptors but ``kept``; of the standard ones the others become /dev/null."""
    first = len(_STANDARD)
    for fd in sorted(fd for fd in kept if fd >= first):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 30)
    null = os.open(os.devnull, os.O_RDWR)  # there is room for it now
    for fd in _STANDARD:
        if fd not in kept:
            os.dup2(null, fd)
    if null not in _STANDARD:
        os.close(null)
