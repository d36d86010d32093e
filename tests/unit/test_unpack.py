"""Hostile msgpack: bounded, refused with the offset of the message, and final."""

from __future__ import annotations

import msgpack
import pytest

from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import OverflowEvent
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.unpack import MAX_MESSAGE_LEN, MsgpackDecoder

GOOD = FORMATS["msgpack"].encode(OverflowEvent())


def test_a_message_without_an_end_is_refused_before_its_end() -> None:
    decoder = MsgpackDecoder()
    assert list(decoder.feed(GOOD)) == [OverflowEvent()]
    endless = b"\x82\xa1x\xdc\x40\x00" + msgpack.packb(bytes(65536)) * 20
    with pytest.raises(DecodeError, match=f"more than {MAX_MESSAGE_LEN} bytes") as caught:
        list(decoder.feed(endless))
    assert caught.value.offset == len(GOOD)


@pytest.mark.parametrize(
    "data",
    [
        b"\xdb\x00\x01\x00\x01" + bytes(65537),
        b"\xc6\x00\x01\x00\x01" + bytes(65537),
        b"\xdd\x00\x00\x40\x01",
        b"\xde\x00\x41",
    ],
    ids=["str", "bin", "array", "map"],
)
def test_a_value_that_no_event_has_room_for(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"not msgpack: .*exceeds"):
        list(MsgpackDecoder().feed(data))


def test_an_error_is_final() -> None:
    decoder = MsgpackDecoder()
    for data in (GOOD + msgpack.packb({"v": 4}), GOOD, b""):
        with pytest.raises(DecodeError, match="'v' is 4, not 3") as caught:
            list(decoder.feed(data))
        assert caught.value.offset == len(GOOD)
    decoder.close()


def test_the_end_within_a_message() -> None:
    decoder = MsgpackDecoder()
    assert list(decoder.feed(GOOD + GOOD[:5])) == [OverflowEvent()]
    with pytest.raises(DecodeError, match=f"offset {len(GOOD)}: the data end after 5 bytes"):
        decoder.close()
