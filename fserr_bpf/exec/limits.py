"""How many descriptors the supervisor may have: clients must not take the last ones."""

from __future__ import annotations

import contextlib
import errno
import resource

SPARE = 10
"""Descriptors that calls and events need for a moment; paths of clients are the workers'."""
_MANY = 65536


def raise_limit() -> None:
    """As many as can be: what limits a client's groups are its own limits, as natively."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (most, max(most, _MANY)):
        with contextlib.suppress(OSError, ValueError):  # more needs CAP_SYS_RESOURCE
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def require_room(newest: int) -> None:
    """OSError (EMFILE) where `SPARE` descriptors are not left.

    ``newest`` is one that was opened just now: the lowest number that was free, so at least as
    many are in use.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if newest >= limit - SPARE:
        raise OSError(errno.EMFILE, too_many_files())


def too_many_files() -> str:
    """In words."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"too many open files: the limit is {limit}"
