"""What ``read(2)`` on a fanotify group does, over an emulated queue."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.model.event import Event
from fserr_bpf.model.queue import NotificationQueue


def read(
    queue: NotificationQueue, size: int, complete: Callable[[Event], Event] = lambda event: event
) -> bytes:
    """Return the queued events that fit ``size`` bytes whole, and take them out.

    As ``fanotify_read()`` and ``get_one_event()`` of a non-blocking group: raises
    BlockingIOError (EAGAIN) when the queue is empty and OSError (EINVAL), leaving
    the event, when the first one does not fit. ``complete`` is called with each event
    that is being read and must not change its length.
    """
    parts: list[bytes] = []
    room = size
    while (event := queue.peek()) is not None:
        data = encode(event)
        if len(data) > room:
            if not parts:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            break
        queue.pop()
        completed = complete(event)
        parts.append(data if completed is event else encode(completed))
        room -= len(data)
    if not parts:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return b"".join(parts)
