"""The output formats by name, each a function from an event to the bytes to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from fserr_bpf.codec import fanotify
from fserr_bpf.model.event import Event, Lost
from fserr_bpf.model.state import StateChange
from fserr_bpf.outputs import text
from fserr_bpf.outputs.schema import Message, to_dict
from fserr_bpf.outputs.state import change_line


class Format(NamedTuple):
    """``encode`` gives one event's bytes; a stream is their concatenation.

    ``encode_more`` does so for what is no event, states and losses. It is None where the format
    has events only: there they are messages.
    """

    name: str
    encode: Callable[[Event], bytes]
    encode_more: Callable[[StateChange | Lost], bytes] | None = None


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


def encoded(message: Message, form: Format) -> bytes:
    """Any message, as a line for people where the format has events only."""
    if not isinstance(message, StateChange | Lost):
        return form.encode(message)
    if form.encode_more:
        return form.encode_more(message)
    line = change_line(message) if isinstance(message, StateChange) else text.lost_line(message)
    return f"{line}\n".encode()
