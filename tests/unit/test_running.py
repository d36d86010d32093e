"""All outputs of a service together, and another configuration while they run."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.errors import UsageError
from fserr_bpf.model.event import EventId, FsErrorEvent, Fsid
from fserr_bpf.service.description import EventSocket, File, Prometheus, Service
from fserr_bpf.service.report import Counted, Report
from fserr_bpf.service.service import COUNTED_MOST, Running
from tests.live.conftest import wait_until
from tests.unit.test_deploy import report
from tests.unit.test_outputs import ORIGIN


def of(seq: int) -> FsErrorEvent:
    return FsErrorEvent(Fsid(1, 2), None, 5, 1, 3, id=EventId("boot", 9, seq))


def seqs(file: Path) -> list[int]:
    if not file.exists():
        return []
    return [json.loads(line)["id"]["seq"] for line in file.read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    folder.mkdir()
    yield folder
    assert not [path for path in folder.iterdir() if path.suffix != ".log"]


def test_outputs_change_while_messages_come(folder: Path) -> None:
    """One stays, one goes, one is new; the endpoint goes on where its address is the same."""
    stays, goes, new = (folder / f"{name}.log" for name in ("stays", "goes", "new"))
    listen, moved = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    before = Service(str(folder), (File(str(stays)), File(str(goes))), Prometheus(None, listen))
    after = Service(
        str(folder),
        (File(str(stays)), File(str(new)), EventSocket(str(folder / "events.sock"))),
        Prometheus(str(folder / "x.prom"), listen),
    )
    with Running(before, None) as running:
        running.start()
        running.give(of(1))
        running.show(lambda errors, outputs: report())
        wait_until(lambda: seqs(goes) == [1] == seqs(stays), "the first")
        assert "fserr_messages_total 7.0" in scraped(listen[1])
        running.change(after)
        running.give(of(2))
        running.show(lambda errors, outputs: report())
        wait_until(lambda: (seqs(stays), seqs(new)) == ([1, 2], [2]), "the second")
        assert "fserr_messages_total 7.0" in scraped(listen[1])
        wait_until((folder / "x.prom").exists, "the textfile")
        assert (folder / "events.sock").is_socket()
        running.change(Service(str(folder), (), Prometheus(None, moved)))
        assert "fserr_messages_total 7.0" in scraped(moved[1])
        wait_until(lambda: not _answers(listen[1]), "the end of the other address")
        running.give(of(3))
    assert (seqs(stays), seqs(goes), seqs(new)) == ([1, 2], [1], [2])
    assert running.news() == []


def _answers(port: int) -> bool:
    try:
        scraped(port)
    except (urllib.error.URLError, OSError):
        return False
    return True


def test_change_that_cannot_be_had_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """An address that is taken, a folder that was given up."""
    file = folder / "file.log"
    before = Service(str(folder), (File(str(file)),))
    with socket.socket() as taken, Running(before, None) as running:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        running.start()
        assert running.lock(lambda folders: folders == {str(folder)})
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^no metrics at 127.0.0.1 port {port}: Address "):
            running.change(Service(str(folder), (), Prometheus(None, ("127.0.0.1", port))))
        elsewhere = File(str(tmp_path / "elsewhere.log"))
        with pytest.raises(UsageError, match=rf"^{tmp_path} is a new folder, and the right to "):
            running.change(Service(str(folder), (elsewhere,)))
        running.give(of(1))
        wait_until(lambda: seqs(file) == [1], "the message")


def test_labels_are_bounded(folder: Path) -> None:
    """However many devices come and go."""
    with Running(Service(str(folder)), None) as running:
        for minor in range(COUNTED_MOST + 50):
            dev = ORIGIN.dev._replace(minor=minor)
            running.give(of(minor + 1)._replace(origin=ORIGIN._replace(dev=dev)))
        shown: list[Counter[Counted]] = []

        def make(errors: Counter[Counted], _: object) -> Report:
            shown.append(errors)
            return report()

        running.show(make)
    (counts,) = shown
    assert len(counts) == COUNTED_MOST + 1
    assert [n for counted, n in counts.items() if counted.device == "other"] == [50]
