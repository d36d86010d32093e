"""The socket of a service: who may read, in which format, and what a slow reader loses alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.codec.fanotify import decode
from fserr_bpf.errors import UsageError
from fserr_bpf.model.event import EventId, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.state import Condition, StateChange
from fserr_bpf.outputs.unpack import MsgpackDecoder
from fserr_bpf.service.description import EventSocket, Queueing
from fserr_bpf.service.eventsocket import READERS_MOST, SocketOutput
from tests.live.conftest import wait_until
from tests.unit.test_journal import STATE

Start = Callable[..., SocketOutput]


def of(seq: int) -> FsErrorEvent:
    return FsErrorEvent(Fsid(1, 2), None, 5, 1, 3, id=EventId("boot", 9, seq))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.sock")


@pytest.fixture
def started(path: str) -> Iterator[Start]:
    outputs: list[SocketOutput] = []

    def start(**queueing: Any) -> SocketOutput:
        output = SocketOutput(EventSocket(path, None, Queueing(**queueing)), lambda: None)
        output.start()
        outputs.append(output)
        return output

    yield start
    for output in outputs:
        output.close()
        output._thread.join(10)
        assert not output._thread.is_alive()
    assert not os.path.exists(path)


def reader(path: str, form: str, output: SocketOutput) -> socket.socket:
    """One that is listened to from now on."""
    before = sum(each.form is not None for each in output._readers.values())
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(path)
    connection.sendall(form.encode() + b"\n")
    wait_until(
        lambda: sum(r.form is not None for r in list(output._readers.values())) > before, "it"
    )
    return connection


def lines(connection: socket.socket, count: int) -> list[dict[str, Any]]:
    data = b""
    while data.count(b"\n") < count:
        more = connection.recv(1 << 16)
        assert more, data
        data += more
    return [json.loads(line) for line in data.splitlines()]


def test_each_format_from_when_its_reader_came(started: Start, path: str) -> None:
    output = started()
    output.give(of(1))
    output.give(StateChange(5, STATE, Condition.OK, id=EventId("boot", 9, 2)))
    forms = ("json", "msgpack", "raw")
    as_json, as_msgpack, as_raw = (reader(path, form, output) for form in forms)
    output.give(of(3))
    state, event = lines(as_json, 2)
    assert (state["type"], state["id"]["seq"]) == ("state", 2)
    assert (event["type"], event["id"]["seq"]) == ("fs_error", 3)
    decoder = MsgpackDecoder()
    got: list[object] = []
    while len(got) < 2:
        got += decoder.feed(as_msgpack.recv(1 << 16))
    assert got[1] == of(3)
    data = as_raw.recv(1 << 16)
    assert decode(data, 0) == (of(3)._replace(id=None), len(data))
    for connection in (as_json, as_msgpack, as_raw):
        connection.close()
    wait_until(lambda: not output._readers, "the readers to go")


def test_slow_reader_loses_alone(started: Start, path: str) -> None:
    """In JSON it learns which numbers, in raw that there were some."""
    output = started(queue=10)
    with (
        reader(path, "json", output) as slow,
        reader(path, "raw", output) as slow_raw,
        reader(path, "json", output) as quick,
    ):
        for seq in range(1, 5001):
            output.give(of(seq))
            (event,) = lines(quick, 1)
            assert event["id"]["seq"] == seq
        assert output.state().lost > 0
        numbers: list[int] = []
        losses = 0
        with slow.makefile("rb") as file:
            while numbers[-1:] != [5000]:
                each = json.loads(file.readline())
                losses += each["type"] == "lost"
                first = each["first"] if each["type"] == "lost" else each["id"]["seq"]
                numbers += range(first, each["id"]["seq"] + 1)
        assert numbers == list(range(1, 5001))
        assert losses > 0
        data = b""
        while OverflowEvent() not in (events := _whole(data)):
            data += slow_raw.recv(1 << 16)
        assert events.index(OverflowEvent()) > 0


def _whole(data: bytes) -> list[object]:
    found: list[object] = []
    at = 0
    while at + 4 <= len(data) and at + int.from_bytes(data[at : at + 4], "little") <= len(data):
        event, at = decode(data, at)
        found.append(event)
    return found


@pytest.mark.parametrize("said", [b"text\n", b"xml\n", b"\xff\n", b"x" * 100])
def test_who_asks_for_nonsense_is_closed(said: bytes, started: Start, path: str) -> None:
    started()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(said)
        assert connection.recv(100) == b""


def test_so_many_readers_and_no_more(started: Start, path: str) -> None:
    output = started()
    readers = [reader(path, "json", output) for _ in range(READERS_MOST)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(path)
        assert connection.recv(100) == b""
    wait_until(lambda: output.state().failures == 1, "the count")
    (told,) = output.news()
    assert told.endswith(
        f"there are {READERS_MOST} readers already; further refusals are only counted"
    )
    for each in readers:
        each.close()


NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    connection.connect(sys.argv[1])
    connection.sendall(b"json\\n")
    print(connection.recv(100))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_other_users_are_refused_by_mode_and_by_credentials(
    started: Start, path: str, tmp_path: Path
) -> None:
    output = started()
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    assert os.stat(path).st_mode & 0o777 == 0o660
    command = [sys.executable, "-c", NOBODY, path]
    refused = subprocess.run(command, capture_output=True, text=True, check=True)
    assert refused.stdout == "PermissionError\n"
    os.chmod(path, 0o666)
    closed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert closed.stdout in ("b''\n", "BrokenPipeError\n", "ConnectionResetError\n")
    assert output.state().failures == 1


def test_socket_of_a_run_that_was_killed_is_replaced(started: Start, path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(path)
    output = started()
    output.give(StateChange(5, STATE, id=EventId("boot", 9, 1)))
    with reader(path, "json", output) as connection:
        assert lines(connection, 1)[0]["type"] == "state"


def test_what_is_no_socket_is_left(path: str) -> None:
    Path(path).write_text("mine")
    with pytest.raises(UsageError, match=r"events.sock: Address already in use; name another "):
        SocketOutput(EventSocket(path), lambda: None)
    assert Path(path).read_text() == "mine"
    with pytest.raises(UsageError, match=r"^no such group: nobodys-group; create it or "):
        SocketOutput(EventSocket(f"{path}2", "nobodys-group"), lambda: None)
