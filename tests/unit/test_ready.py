"""The ready signal: real descriptors and sockets, without a monitor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.cli.ready import Readiness
from fserr_bpf.errors import UsageError

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))


@pytest.fixture(autouse=True)
def no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reader and writer; the writer is for the one who tells to close."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def test_one_line_and_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with Readiness(str(writer)) as readiness:
        assert not os.get_inheritable(writer)
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)
        readiness.signal()
        assert os.read(reader, 100) == b"READY=1\n"
        assert os.read(reader, 100) == b""  # closed by it


def test_closed_without_a_line_if_it_comes_to_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    Readiness(str(writer)).close()
    assert os.read(reader, 100) == b""


def test_reader_that_has_gone_is_reported_only(
    capfd: pytest.CaptureFixture[str],
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with Readiness(str(writer)) as readiness:
        readiness.signal()
    said = capfd.readouterr().err
    assert said == f"fserr-bpf: cannot write READY=1 to descriptor {writer}: Broken pipe\n"


@pytest.mark.parametrize("address", ["path", "abstract"])
def test_service_manager_hears_start_and_end(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(tmp_path / "notify") if address == "path" else f"@fserr-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        with Readiness(None) as readiness:
            assert "NOTIFY_SOCKET" not in os.environ  # not for hooks and helpers
            with pytest.raises(BlockingIOError):
                manager.recv(100)
            readiness.signal()
            assert manager.recv(100) == b"READY=1"
            readiness.close()
            assert manager.recv(100) == b"STOPPING=1"
        with pytest.raises(BlockingIOError):  # once
            manager.recv(100)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        Readiness(None).close()
        with pytest.raises(BlockingIOError):  # it has not been ready
            manager.recv(100)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("/nonexistent/notify", "No such file or directory"),
        ("@nobody-has-this-name", "Connection refused"),
        ("/" + "x" * 200, "AF_UNIX path too long"),
    ],
)
def test_manager_that_cannot_be_reached_is_reported_only(
    address: str, why: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with Readiness(None) as readiness:
        readiness.signal()
    said = capfd.readouterr().err
    assert said == f"fserr-bpf: NOTIFY_SOCKET={address} cannot be reached: {why}\n"


def test_manager_that_goes_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        readiness = Readiness(None)
    readiness.signal()
    said = capfd.readouterr().err
    assert said == "fserr-bpf: NOTIFY_SOCKET has not got READY=1: Connection refused\n"
    readiness.close()


@pytest.mark.parametrize("text", ["-1", "1", "two", "", "4.0"])
def test_what_is_no_number_of_a_descriptor(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--ready-fd {text} is not a number above 2; name "):
        Readiness(text)


@pytest.mark.parametrize("text", ["987654", "9" * 30])
def test_what_is_not_open(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--ready-fd {text} is not open; name "):
        Readiness(text)


def test_what_cannot_be_written_to(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(writer)
    with pytest.raises(UsageError, match=f"^--ready-fd {reader} is open for reading only; "):
        Readiness(str(reader))


@pytest.mark.parametrize(
    "words", [["run"], ["watch-files", "--glob", "/*"], ["top", "--once", "--json"]]
)
def test_command_refuses_first_of_all(words: list[str]) -> None:
    """For everybody: before the rights are looked at."""
    done = subprocess.run(
        [COMMAND, *words, "--ready-fd", "77"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (UsageError.exit_code, "")
    assert done.stderr == (
        "fserr-bpf: --ready-fd 77 is not open; name a descriptor that is open for writing\n"
    )


def test_service_manager_hears_that_it_is_alive_and_reloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as it wants, and not at every turn of the loop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "240000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        with Readiness(None) as readiness:
            assert readiness.alive_seconds == 120
            assert not {"WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
            readiness.alive()
            readiness.alive()
            assert manager.recv(100) == b"WATCHDOG=1"
            with pytest.raises(BlockingIOError):
                manager.recv(100)
            readiness.reloading()
            readiness.reloaded()
            name, number = manager.recv(100).split(b"\nMONOTONIC_USEC=")
            assert name == b"RELOADING=1"
            assert 0 <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - int(number) < 10**8
            assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("microseconds", "pid"), [("", ""), ("0", ""), ("soon", ""), ("240000000", "1")]
)
def test_watchdog_that_is_not_for_us(
    microseconds: str, pid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
        monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
        with Readiness(None) as readiness:
            assert readiness.alive_seconds is None
            readiness.alive()
            with pytest.raises(BlockingIOError):
                manager.recv(100)
