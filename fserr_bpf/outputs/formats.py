"""The output formats by name, each a function from an event to the bytes to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from fserr_bpf.codec import fanotify
from fserr_bpf.model.event import Event
from fserr_bpf.model.state import StateChange
from fserr_bpf.outputs import text
from fserr_bpf.outputs.schema import Message, to_dict


class Format(NamedTuple):
    """``encode`` gives one event's bytes; a stream is their concatenation.

    ``encode_state`` is None where the format has events only: there states are messages.
    """

    name: str
    encode: Callable[[Event], bytes]
    encode_state: Callable[[StateChange], bytes] | None = None


def _text(event: Event) -> bytes:
    return text.line(event).encode() + b"\n"


def _json(event: Message) -> bytes:
    line = json.dumps(to_dict(event), default=bytes.hex, separators=(",", ":"))
    return line.encode() + b"\n"


def _msgpack(event: Message) -> bytes:
    # surrogateescape: a path that is not UTF-8 goes out as the bytes it came as
    packed: bytes = msgpack.packb(to_dict(event), unicode_errors="surrogateescape")
    return packed


FORMATS = {
    format.name: format
    for format in (
        Format("text", _text),
        Format("json", _json, _json),
        Format("msgpack", _msgpack, _msgpack),
        Format("raw", fanotify.encode),
    )
}
