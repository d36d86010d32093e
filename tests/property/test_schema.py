"""The schema, JSON and msgpack for all values; msgpack for all bytes."""

from __future__ import annotations

import json

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Event, Lost
from fserr_bpf.model.state import StateChange
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.schema import Message, from_dict, to_dict
from fserr_bpf.outputs.state import change_line
from fserr_bpf.outputs.text import line, lost_line
from fserr_bpf.outputs.unpack import MsgpackDecoder
from tests.property import strategies

json_bytes, msgpack_bytes = FORMATS["json"].encode, FORMATS["msgpack"].encode


def outcome(pieces: list[bytes]) -> tuple[list[Message], tuple[int, str] | None]:
    decoder = MsgpackDecoder()
    events: list[Message] = []
    try:
        for piece in pieces:
            for event in decoder.feed(piece):
                events.append(event)
        decoder.close()
    except DecodeError as error:
        return events, (error.offset, error.reason)
    return events, None


@given(strategies.numbered_events())
def test_dict_and_json_give_the_event_back(event: Event) -> None:
    assert from_dict(to_dict(event)) == event
    data = json_bytes(event)
    assert data.count(b"\n") == 1
    assert data.isascii()
    assert from_dict(json.loads(data)) == event


@given(strategies.state_changes)
def test_states_come_back_from_both_formats_and_are_one_line(change: StateChange) -> None:
    data = [FORMATS[name].encode_more for name in ("json", "msgpack")]
    as_json, as_msgpack = (encode(change) for encode in data if encode)
    assert from_dict(json.loads(as_json)) == change
    assert outcome([as_msgpack]) == ([change], None)
    assert "\n" not in change_line(change)
    assert change_line(change).isprintable()


@given(strategies.losses)
def test_losses_come_back_from_both_formats_and_are_one_line(lost: Lost) -> None:
    data = [FORMATS[name].encode_more for name in ("json", "msgpack")]
    as_json, as_msgpack = (encode(lost) for encode in data if encode)
    assert from_dict(json.loads(as_json)) == lost
    assert outcome([as_msgpack]) == ([lost], None)
    assert lost_line(lost).isprintable()


@given(st.lists(strategies.numbered_events(), max_size=3))
def test_msgpack_gives_the_events_back_in_any_pieces(events: list[Event]) -> None:
    data = b"".join(map(msgpack_bytes, events))
    assert outcome([data]) == (events, None)
    assert outcome([data[i : i + 1] for i in range(len(data))]) == (events, None)


@given(st.lists(strategies.events, max_size=2), st.binary(max_size=60))
@example([], b"\xc1")
@example([], b"\xdd\xff\xff\xff\xff")
@example([], b"\x91" * 5000)
@example([], b"\x81\x90\x00")
@example([], b"\xd6\xff\0\0\0\0")
@example([], b"\xc7\x01\xff\0")
def test_any_bytes_behind_good_events_give_events_or_a_decode_error(
    events: list[Event], rest: bytes
) -> None:
    start = b"".join(map(msgpack_bytes, events))
    got, error = outcome([start + rest])
    assert got == events
    assert error == ((len(start), error[1]) if error else None)
    assert (error is None) == (not rest)
    pieces = [rest[i : i + 1] for i in range(len(rest))]
    again, error_again = outcome([start, *pieces])
    assert again == events
    assert (error_again and error_again[0]) == (error and error[0])


@given(strategies.numbered_events(), st.data())
def test_a_wrong_value_under_any_key_is_a_decode_error(event: Event, draw: st.DataObject) -> None:
    value = to_dict(event)
    keys = [key for key in value if key not in ("errno", "id")]
    key = draw.draw(st.sampled_from(keys))
    wrong = draw.draw(strategies.plain_values)
    try:
        changed = from_dict(value | {key: wrong})
    except DecodeError:
        pass
    else:
        assert from_dict(to_dict(changed)) == changed
    del value[key]
    with pytest.raises(DecodeError, match=r"offset 7: .* is missing"):
        from_dict(value, 7)


@given(strategies.plain_values)
def test_any_message_gives_an_event_or_a_decode_error(value: object) -> None:
    data = msgpack.packb(value)
    assert outcome([data])[1] is not None


@given(strategies.events)
def test_a_text_line_is_one_line_of_printable_characters(event: Event) -> None:
    assert line(event).isprintable()
    assert FORMATS["text"].encode(event) == line(event).encode() + b"\n"
