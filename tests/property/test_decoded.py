"""Taken apart for people, no byte of a stream is lost, whatever it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fserr_bpf.codec.fanotify import encode
from fserr_bpf_compare.report.decoded import events, fields
from fserr_bpf_compare.report.streams import streams
from fserr_bpf_compare.verdict.cells import Read
from tests.property import strategies

encoded = st.lists(strategies.events.map(encode), max_size=4).map(b"".join)
garbled = st.builds(lambda data, tail: data + tail, encoded, st.binary(max_size=80))


@given(garbled)
def test_records_and_fields_have_every_byte_once(stream: bytes) -> None:
    found = list(events(stream))
    assert b"".join(event.data for event in found) == stream
    for event in found:
        for part in event.parts:
            split = list(fields(part))
            assert b"".join(field.data for field in split) == part.data
            at = part.offset
            for field in split:
                assert field.offset == at
                at += len(field.data)


@given(garbled, garbled)
def test_marks_are_where_streams_differ(real: bytes, emulated: bytes) -> None:
    shown = streams([Read(0, real)], [Read(0, emulated)])
    values = [
        value
        for event in shown.events
        for record in event.records
        for row in record.rows
        for value in row.sides
    ]
    marked = any(run.differs for value in values for run in value.digits)
    assert marked == (real != emulated)
