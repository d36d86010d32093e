"""One output with its thread: a disk that is full, a journal that is away, a reader that hangs."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.model.event import EventId, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.outputs.classes import MessageClass
from fserr_bpf.outputs.journal import JournalSocket
from fserr_bpf.service.description import Full, Queueing
from fserr_bpf.service.filetarget import FileTarget
from fserr_bpf.service.output import Output, Target
from fserr_bpf.service.publish import Published, write_whole
from tests.live.conftest import wait_until

TROUBLE = "tried again until it works"


def of(seq: int) -> FsErrorEvent:
    return FsErrorEvent(Fsid(1, 2), None, 5, 1, 3, id=EventId("boot", 9, seq))


Start = Callable[..., Output]
"""From a target, and how it is queued, to an output that is closed at the end."""


@pytest.fixture
def started() -> Iterator[Start]:
    all_of_them: list[Output] = []

    def start(target: Target, **queueing: Any) -> Output:
        output = Output("it", target, Queueing(**queueing), lambda: None)
        output.start()
        all_of_them.append(output)
        return output

    yield start
    for output in all_of_them:
        output.close()


def numbers(file: Path) -> list[tuple[int, ...]]:
    """Sequence numbers of events; of losses their borders."""
    found: list[tuple[int, ...]] = []
    for line in file.read_text().splitlines():
        value = json.loads(line)
        lost = value["type"] == "lost"
        found.append((value["first"], value["last"]) if lost else (value["id"]["seq"],))
    return found


def test_messages_of_its_classes_come_in_order(started: Start, tmp_path: Path) -> None:
    file = tmp_path / "events"
    output = started(FileTarget(str(file), "json"), classes=frozenset({MessageClass.IO}))
    for seq in range(1, 301):
        output.give(of(seq) if seq % 2 else OverflowEvent(id=EventId("boot", 9, seq)))
    wait_until(lambda: output.state().sent == 150, "the messages")
    assert numbers(file) == [(seq,) for seq in range(1, 301, 2)]
    assert output.state() == ("it", 0, 150, 0, 0, "")
    assert file.stat().st_mode & 0o777 == 0o640


def test_trouble_is_told_once_and_what_waits_comes_later(started: Start, tmp_path: Path) -> None:
    """A folder that appears late stands for a disk that is mounted, or writable, again."""
    file = tmp_path / "later" / "events"
    output = started(FileTarget(str(file), "json"), queue=3)
    for seq in range(1, 7):
        output.give(of(seq))
    wait_until(lambda: output.state().failures > 0, "the first failure")
    assert output.state().trouble.endswith("events: No such file or directory")
    assert output.state().waiting + output.state().lost == 6
    file.parent.mkdir()
    output.reopen()  # as SIGHUP does: now, not after the pause
    wait_until(lambda: output.state().waiting == 0, "the messages")
    told = output.news()
    assert [line for line in told if TROUBLE in line] == [
        f"it: {file}: No such file or directory; {TROUBLE}"
    ]
    assert told[-1] == "it: works again"
    delivered = numbers(file)
    assert delivered[:3] == [(1,), (2,), (3,)]
    assert sum(n[-1] - n[0] + 1 for n in delivered) == 6


def test_full_disk_keeps_the_oldest_or_the_newest(started: Start) -> None:
    for drop, kept in ((Full.NEWEST, 1), (Full.OLDEST, 5)):
        output = started(FileTarget("/dev/full", "json"), queue=2, drop=drop)
        output.give(of(1))
        wait_until(lambda o=output: o.state().failures > 0, "a failure")  # type: ignore[misc]
        for seq in range(2, 6):
            output.give(of(seq))
        assert (output.state().waiting, output.state().lost) == (2, 3)
        assert output._backlog.take(9)[0 if drop is Full.NEWEST else -1] == of(kept)


def test_journal_that_reads_nothing_stalls_nobody(started: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        output = started(JournalSocket(path), queue=100)
        for seq in range(1, 2001):
            output.give(of(seq))
        wait_until(lambda: output.state().lost > 0, "the queue to be full")
        output.close(0.1)
        (told,) = [line for line in output.news() if "not delivered" in line]
        assert told == f"it: not delivered at the end: {output.state().waiting} messages"
        journal.setblocking(True)
        first = journal.recv(9999)
    assert b"\nFSERR_SEQ=1\n" in first


def test_end_delivers_what_waits(started: Start, tmp_path: Path) -> None:
    file = tmp_path / "events"
    output = started(FileTarget(str(file), "json"))
    for seq in range(1, 1001):
        output.give(of(seq))
    output.close()
    assert numbers(file) == [(seq,) for seq in range(1, 1001)]


def test_published_file_is_whole_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Published(str(path)) as published:
        published.start()
        published.show(lambda: b"one")
        wait_until(path.exists, "the file")
        assert path.read_bytes() == b"one"
        assert path.stat().st_mode & 0o777 == 0o644
        published.show(lambda: b"two")
        published.show(lambda: b"three")
        wait_until(lambda: path.read_bytes() == b"three", "the newest")
    assert list(tmp_path.iterdir()) == []


def test_published_file_is_readable_for_all_in_a_unit_too(tmp_path: Path) -> None:
    """Whose umask is 0077."""
    path = tmp_path / "state"
    before = os.umask(0o077)
    try:
        write_whole(str(path), b"x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_published_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    published = Published(str(folder / "state"))
    published.start()
    tries: list[int] = []

    def content() -> bytes:
        tries.append(1)
        return b"x"

    for wanted in (1, 2):
        published.show(content)
        wait_until(lambda n=wanted: len(tries) == n, "a try")  # type: ignore[misc]
    folder.mkdir()
    published.show(content)
    wait_until((folder / "state").exists, "the file")
    published.close()
    assert published.news() == [
        f"{folder}/state cannot be written: No such file or directory",
        f"{folder}/state is written again",
    ]


def test_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    write_whole(path, b"a" * 100_000)
    torn: list[bytes] = []

    def read() -> None:
        for _ in range(300):
            data = Path(path).read_bytes()
            if len(set(data)) != 1 or len(data) != 100_000:
                torn.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        for letter in (b"a", b"b"):
            write_whole(path, letter * 100_000)
    reader.join()
    assert torn == []
    os.symlink("/etc/passwd", f"{path}.new")
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(path, b"")
