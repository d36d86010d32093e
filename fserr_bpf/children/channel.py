"""The channel between two processes of ours: messages of JSON, and descriptors."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from fserr_bpf.closing import Closing

MESSAGE_SIZE = 1 << 17
"""Bytes of JSON that a message has at most."""
_DESCRIPTORS = 128  # of one message at most


class Channel(Closing):
    """One end of a pair of SEQPACKET sockets. A message is a JSON object."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def of(cls, descriptor: int) -> Channel:
        """The end that ``descriptor`` is, which it takes over."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Readable while a message waits, or when the other end has been closed."""
        return self._socket.fileno()

    def make_room(self, messages: int) -> None:
        """So many of the largest messages can be sent before anybody receives one."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, messages * MESSAGE_SIZE)

    def send(self, message: Mapping[str, Any], *, wait: bool = True) -> None:
        """Send it.

        Raises ConnectionError when the other end is closed, without ``wait`` BlockingIOError
        where there is no room now, ValueError for a message that is too long.
        """
        self._socket.send(_encoded(message), 0 if wait else socket.MSG_DONTWAIT)

    def send_descriptors(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """The same with copies of ``descriptors`` (SCM_RIGHTS); waits for room."""
        socket.send_fds(self._socket, [_encoded(message)], descriptors)

    def receive(self, *, wait: bool = True) -> dict[str, Any]:
        """The next message.

        Raises EOFError when the other end is closed, without ``wait`` BlockingIOError where
        there is none now.
        """
        try:
            data = self._socket.recv(MESSAGE_SIZE, 0 if wait else socket.MSG_DONTWAIT)
        except ConnectionError:  # closed with messages of ours unread
            data = b""
        return _decoded(data)

    def receive_descriptors(self) -> tuple[dict[str, Any], list[int]]:
        """The next message and the descriptors with it, close-on-exec; waits.

        Raises EOFError, and OSError EMFILE where this process may not open as many.
        """
        flags = 0
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._socket, MESSAGE_SIZE, _DESCRIPTORS)
        except ConnectionError:
            data, descriptors = b"", []
        if flags & socket.MSG_CTRUNC:  # the kernel has closed those that found no number
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        return _decoded(data), descriptors

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def _encoded(message: Mapping[str, Any]) -> bytes:
    data = json.dumps(message).encode()
    if len(data) > MESSAGE_SIZE:
        raise ValueError(f"a message of {len(data)} bytes, {MESSAGE_SIZE} is the most")
    return data


def _decoded(data: bytes) -> dict[str, Any]:
    if not data:
        raise EOFError("the process has ended")
    message: dict[str, Any] = json.loads(data)
    return message


def channel_pair() -> tuple[Channel, Channel]:
    """Both ends of a channel, for two processes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)


def channel_to_parent(descriptor: str) -> Channel:
    """The child's end, from the first argument that it was given."""
    number = int(descriptor)
    os.set_inheritable(number, False)  # what the child starts has no part in it
    return Channel.of(number)
