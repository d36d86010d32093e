"""The fanotify codec for all values and all bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fserr_bpf.codec.fanotify import Decoder, decode, encode
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, OverflowEvent
from tests.property import strategies


def outcome(pieces: list[bytes]) -> tuple[list[Event], tuple[int, str] | None]:
    """All events of a stream in ``pieces``, and its error as offset and reason."""
    decoder = Decoder()
    events: list[Event] = []
    try:
        for piece in pieces:
            for event in decoder.feed(piece):
                events.append(event)
        decoder.close()
    except DecodeError as error:
        return events, (error.offset, error.reason)
    return events, None


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@st.composite
def damaged_streams(draw: st.DrawFn) -> bytes:
    """Valid events with some bytes overwritten: closer to the checks than noise."""
    data = bytearray(
        b"".join(map(encode, draw(st.lists(strategies.events, min_size=1, max_size=3))))
    )
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.sampled_from((0, 1, 4, 5, 8, 0x18, 0xFF)) | st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


streams = st.binary(max_size=200) | damaged_streams()


@given(strategies.events)
def test_decode_gives_back_what_was_encoded(event: Event) -> None:
    data = encode(event)
    assert decode(data) == (strategies.on_the_wire(event), len(data))
    assert len(data) == struct.unpack_from("<I", data)[0]
    assert len(data) % 4 == 0


@given(strategies.events, st.binary(max_size=40), st.binary(max_size=40))
def test_bytes_around_an_event_do_not_matter(event: Event, before: bytes, after: bytes) -> None:
    data = encode(event)
    for stream in (before + data + after, bytearray(before + data + after)):
        decoded, end = decode(stream, len(before))
        assert (decoded, end) == (strategies.on_the_wire(event), len(before) + len(data))


@given(st.lists(strategies.events, max_size=5))
def test_whole_and_byte_by_byte_are_the_same(events: list[Event]) -> None:
    data = b"".join(map(encode, events))
    expected = [strategies.on_the_wire(event) for event in events], None
    assert outcome([data]) == expected
    assert outcome(single_bytes(data)) == expected


@given(streams)
@example(b"")
@example(bytes(24))
def test_any_bytes_give_events_or_a_decode_error(data: bytes) -> None:
    events, error = outcome([data])
    assert outcome(single_bytes(data)) == (events, error)
    if error is None:
        offset = 0
        while offset < len(data):
            _, offset = decode(data, offset)
        assert offset == len(data)
    else:
        assert 0 <= error[0] <= len(data)
        assert outcome([data[: error[0]]]) == (events, None)


@given(streams)
def test_what_decodes_encodes_to_the_same_values(data: bytes) -> None:
    events, _ = outcome([data])
    again = b"".join(map(encode, events))
    assert outcome([again]) == (events, None)


@given(st.lists(strategies.events, min_size=1, max_size=3), st.binary(min_size=1, max_size=23))
def test_a_partial_event_at_the_end_is_an_error_behind_all_good_ones(
    events: list[Event], rest: bytes
) -> None:
    data = b"".join(map(encode, events))
    good, error = outcome([data + rest])
    assert good == [strategies.on_the_wire(event) for event in events]
    assert error is not None
    assert error[0] == len(data)


def split(data: bytes) -> list[bytes]:
    records, at = [], 24
    while at < len(data):
        length = struct.unpack_from("<H", data, at + 2)[0]
        records.append(data[at : at + length])
        at += length
    return records


@given(strategies.fs_error_events, st.data())
def test_info_records_may_come_in_any_order(event: FsErrorEvent, draw: st.DataObject) -> None:
    data = encode(event)
    records = draw.draw(st.permutations(split(data)))
    decoded, end = decode(data[:24] + b"".join(records))
    assert isinstance(decoded, FsErrorEvent)
    assert end == len(data)
    assert sorted(decoded.extra) == sorted(event.extra)
    assert decoded._replace(extra=()) == event._replace(extra=(), origin=None)


@given(strategies.events, st.integers(1, 8))
def test_longer_metadata_of_a_later_kernel_is_skipped(event: Event, words: int) -> None:
    data = bytearray(encode(event))
    data[24:24] = b"\xa5" * 4 * words
    struct.pack_into("<I", data, 0, len(data))
    struct.pack_into("<H", data, 6, 24 + 4 * words)
    assert decode(bytes(data)) == (strategies.on_the_wire(event), len(data))


@pytest.mark.parametrize("field", ["error", "error_count", "pid", "fd", "pidfd"])
@given(st.integers(max_value=-(2**31) - 1) | st.integers(min_value=2**32))
def test_a_number_that_does_not_fit_is_a_value_error(field: str, number: int) -> None:
    names = ("error", "error_count", "pid", "fd", "pidfd")
    error, error_count, pid, fd, pidfd = (number if name == field else 1 for name in names)
    with pytest.raises(ValueError, match="out of range"):
        encode(FsErrorEvent(Fsid(0, 0), None, error, error_count, pid, fd, pidfd))
    if field in ("pid", "fd", "pidfd"):
        overflow = OverflowEvent(pid, fd, pidfd)
        with pytest.raises(ValueError, match="out of range"):
            encode(overflow)
