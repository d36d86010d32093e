"""The guardian: a client must not wait for ever for a supervisor that was killed.

It holds the write ends of the clients' pipes and does nothing until its child, the
supervisor, has ended. If that was not the client's end, each pipe gets a FAN_Q_OVERFLOW, which
says in fanotify's own words that events are missing from here on, and standard error a line.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys

_MESSAGE = 256  # an overflow event is 24 to 32 bytes


class Trust:
    """The supervisor's end: hands over what the guardian is to hold."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def hold(self, write_end: int, last_words: bytes) -> None:
        """Have ``last_words`` written to a pipe if the supervisor is killed."""
        socket.send_fds(self._channel, [last_words], [write_end])


def guard(supervisor: int, channel: socket.socket) -> None:
    """Wait for the end of the child ``supervisor``, whose `Trust` sends to ``channel``."""
    held: dict[int, bytes] = {}
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        for fd in ready & held.keys():  # nobody reads it any more
            poll.unregister(fd)
            os.close(fd)
            del held[fd]
        if channel.fileno() not in ready:
            continue
        words, fds, _, _ = socket.recv_fds(channel, _MESSAGE, 1)
        if not words:
            break
        for fd in fds:
            held[fd] = words
            poll.register(fd, 0)  # POLLERR always is told
    _, status = os.waitpid(supervisor, 0)
    if status == 0:
        return
    code = os.waitstatus_to_exitcode(status)
    how = signal.Signals(-code).name if code < 0 else f"status {code}"
    print(
        f"fserr-bpf: the supervisor {supervisor} has died ({how}): no more events come, "
        "and fanotify calls fail with ENOSYS; start the client again",
        file=sys.stderr,
        flush=True,
    )
    for fd, words in held.items():
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full: it has enough to read
            os.set_blocking(fd, False)
            os.write(fd, words)
