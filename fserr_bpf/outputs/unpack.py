"""Events from a msgpack stream, with the shape of ``codec.fanotify.Decoder``."""

from __future__ import annotations

from collections.abc import Iterator

import msgpack

from fserr_bpf.codec.info import ALIGNMENT, MAX_EVENT_LEN
from fserr_bpf.errors import DecodeError
from fserr_bpf.outputs.schema import Message, from_dict

MAX_MESSAGE_LEN = 1 << 20
"""Longest message believed, in bytes: a reader of a pipe must not wait for garbage."""


class MsgpackDecoder:
    """Events from concatenated msgpack maps that arrive in pieces of any size.

    Offsets in errors count from the first byte ever fed. An error is final: every
    later iteration raises it again.
    """

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            unicode_errors="surrogateescape",
            max_buffer_size=0,  # no limit here, _events has one that counts from a message's start
            max_str_len=MAX_EVENT_LEN,
            max_bin_len=MAX_EVENT_LEN,
            max_array_len=MAX_EVENT_LEN // ALIGNMENT,
            max_map_len=64,
            max_ext_len=64,
        )
        self._fed = 0
        self._offset = 0
        self._error: DecodeError | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take ``data`` in at once; iterate to get the events that are now whole.

        The iterator raises DecodeError when it reaches a bad message, after it has
        yielded all the good ones before it.
        """
        self._unpacker.feed(data)
        self._fed += len(data)
        return self._events()

    def _events(self) -> Iterator[Message]:
        if self._error is not None:
            raise self._error
        try:
            for message in self._unpacker:
                end = self._unpacker.tell()
                self._check_length(end)
                event = from_dict(message, self._offset)
                self._offset = end
                yield event
            self._check_length(self._fed)
        except DecodeError as error:
            self._error = error
            raise
        except ValueError as error:  # msgpack's own errors all are
            self._error = DecodeError(self._offset, f"not msgpack: {error or type(error).__name__}")
            raise self._error from error

    def _check_length(self, end: int) -> None:
        if end - self._offset > MAX_MESSAGE_LEN:
            raise DecodeError(self._offset, f"message of more than {MAX_MESSAGE_LEN} bytes")

    def close(self) -> None:
        """The stream has ended; raise DecodeError if it did so within a message."""
        if self._error is None and self._offset < self._fed:
            there = self._fed - self._offset
            raise DecodeError(self._offset, f"the data end after {there} bytes of a message")
