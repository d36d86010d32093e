"""The channel between processes, over the real sockets, and the errors that cross it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fserr_bpf.children.channel import MESSAGE_SIZE, Channel, channel_pair
from fserr_bpf.errors import DecodeError, FserrError


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = channel_pair()
    with ours, theirs:
        yield ours, theirs


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send({"path": "/evil\n\udcff", "numbers": [1, 2**64 - 1]})
    ours.send({})
    assert theirs.receive() == {"path": "/evil\n\udcff", "numbers": [1, 2**64 - 1]}
    assert theirs.receive() == {}
    with pytest.raises(BlockingIOError):
        theirs.receive(wait=False)


def test_the_largest_message(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    text = "x" * (MESSAGE_SIZE - len('{"text": ""}'))
    ours.send({"text": text})
    assert theirs.receive() == {"text": text}
    with pytest.raises(ValueError, match=f"a message of {MESSAGE_SIZE + 1} bytes"):
        ours.send({"text": text + "x"})
    with pytest.raises(BlockingIOError):
        theirs.receive(wait=False)


def test_room_is_made(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    largest = {"text": "x" * (MESSAGE_SIZE - len('{"text": ""}'))}
    ours.make_room(4)
    for _ in range(4):
        ours.send(largest, wait=False)
    assert theirs.receive() == largest


def test_a_full_channel_does_not_wait(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends

    def fill() -> None:
        for _ in range(1 << 20):
            ours.send({"text": "x" * 1000}, wait=False)

    with pytest.raises(BlockingIOError):
        fill()
    assert theirs.receive() == {"text": "x" * 1000}


def test_the_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send({"last": True})
    ours.close()
    assert theirs.receive() == {"last": True}
    for _ in range(2):
        with pytest.raises(EOFError, match=r"^the process has ended$"):
            theirs.receive(wait=False)
    with pytest.raises(EOFError):
        theirs.receive_descriptors()
    with pytest.raises(ConnectionError):
        theirs.send({})


@pytest.mark.parametrize("way", [Channel.receive, Channel.receive_descriptors])
def test_an_end_with_messages_unread(way: object, ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.send({"unread": True})
    ours.close()  # the kernel says ECONNRESET
    assert callable(way)
    with pytest.raises(EOFError):
        way(theirs)


def test_descriptors_are_of_the_same_open_file_and_close_on_exec(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    reader, writer = os.pipe()
    ours.send_descriptors({"kind": "pipe"}, [reader, writer])
    message, (got_reader, got_writer) = theirs.receive_descriptors()
    os.write(writer, b"here")
    assert os.read(got_reader, 10) == b"here"
    assert message == {"kind": "pipe"}
    assert not os.get_inheritable(got_reader)
    assert not os.get_inheritable(got_writer)
    for fd in (reader, writer, got_reader, got_writer):
        os.close(fd)


@pytest.mark.parametrize("kind", [FserrError, *FserrError.__subclasses__()])
def test_an_error_is_the_same_behind_the_channel(
    kind: type[FserrError], ends: tuple[Channel, Channel]
) -> None:
    error = kind("it broke", "mend it") if kind is not DecodeError else DecodeError(5, "it broke")
    ends[0].send(error.to_json())
    again = FserrError.from_json(ends[1].receive())
    assert type(again) is kind
    assert (str(again), again.cause, again.remedy) == (str(error), error.cause, error.remedy)
    assert again.exit_code == kind.exit_code
