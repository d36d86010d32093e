"""The ring record codec for all values and all bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fserr_bpf.codec.record import decode_record
from fserr_bpf.errors import DecodeError
from fserr_bpf.uapi.record import Record
from tests.property import strategies
from tests.ring_values import record_bytes


@given(strategies.records)
def test_decode_gives_back_what_was_encoded(record: Record) -> None:
    assert decode_record(record_bytes(record)) == record


@given(
    st.binary(max_size=200)
    | st.binary(min_size=176, max_size=176)
    | st.binary(min_size=172, max_size=172).map(lambda rest: b"\1\0\xb0\0" + rest)
)
def test_any_bytes_give_a_record_or_a_decode_error(data: bytes) -> None:
    if len(data) == 176 and data[:1] == b"\1" and data[2:4] == b"\xb0\0":
        assert record_bytes(decode_record(data)) == data
    else:
        with pytest.raises(DecodeError, match="offset 0"):
            decode_record(data)
