"""The output's descriptor: whole records, and an error that names where they were to go."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
from pathlib import Path

import pytest

from fserr_bpf.errors import OutputError
from fserr_bpf.outputs.sink import Sink


def test_broken_fifo_is_named(tmp_path: Path) -> None:
    """Not standard output, which has nothing to do with it."""
    fifo = tmp_path / "errors"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with Sink(str(fifo)) as sink:
        sink.write([b"one\n", b"two\n"])
        assert os.read(reader, 100) == b"one\ntwo\n"
        os.close(reader)
        with pytest.raises(OutputError) as caught:
            sink.write([b"three\n"])
    assert caught.value.cause == f"the reader of {fifo} has gone"


def test_full_device_is_named_with_a_remedy() -> None:
    with Sink("/dev/full") as sink, pytest.raises(OutputError) as caught:
        sink.write([b"one\n"])
    assert caught.value.cause == "/dev/full: No space left on device"
    assert caught.value.remedy.startswith("free space there")


def test_folder_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        Sink(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}: Is a directory; name another --output"


def test_fifo_is_written_once_it_has_a_reader(tmp_path: Path) -> None:
    fifo = tmp_path / "errors"
    os.mkfifo(fifo)
    stop, _ = os.pipe()
    with Sink(str(fifo)) as sink:
        assert not sink.has_reader
        seen: list[bytes] = []
        reader = threading.Thread(target=lambda: seen.append(fifo.read_bytes()))
        reader.start()
        assert sink.wait_for_reader(stop)
        sink.write([b"one\n"])
    reader.join()
    assert seen == [b"one\n"]


def test_wait_for_a_reader_ends_with_a_signal(tmp_path: Path) -> None:
    """Also with one that came before: the descriptor stays readable."""
    fifo = tmp_path / "errors"
    os.mkfifo(fifo)
    stop, end = os.pipe()
    os.write(end, b"\x0f")
    with Sink(str(fifo)) as sink:
        assert not sink.wait_for_reader(stop)
    os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))  # ends the thread that waits


@pytest.mark.parametrize("packets", [True, False])
def test_each_read_of_a_pipe_in_packet_mode_is_what_was_written_at_once(
    tmp_path: Path, *, packets: bool
) -> None:
    fifo = tmp_path / "events"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with Sink(str(fifo), packets=packets) as sink:
        assert (sink.batch == 0) is packets
        for data in (b"one", b"second", b"3"):
            sink.write([data])
        reads = []
        while data := _read(reader):
            reads.append(data)
    os.close(reader)
    assert reads == ([b"one", b"second", b"3"] if packets else [b"onesecond3"])


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 8192)
    except BlockingIOError:
        return b""


def test_standard_output_gets_its_mode_back(capfd: pytest.CaptureFixture[str]) -> None:
    """Others write to it afterwards, who know nothing of packets."""
    reader, writer = os.pipe()
    saved = os.dup(1)
    try:
        os.dup2(writer, 1)
        with Sink(None, packets=True) as sink:
            assert fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_DIRECT
            sink.write([b"event"])
        assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_DIRECT
    finally:
        os.dup2(saved, 1)
    assert os.read(reader, 100) == b"event"
    for descriptor in (reader, writer, saved):
        os.close(descriptor)
    assert capfd.readouterr().out == ""


def test_a_renamed_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Sink(str(path)) as sink:
        sink.write([b"one\n"])
        path.rename(tmp_path / "log.1")
        sink.write([b"two\n"])
        sink.reopen()
        sink.write([b"three\n"])
    assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_file_that_cannot_be_opened_again_stays_in_use(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Sink(str(path)) as sink:
        path.rename(tmp_path / "log.1")
        path.mkdir()
        with pytest.raises(OutputError) as caught:
            sink.reopen()
        sink.write([b"one\n"])
    assert caught.value.cause == (
        f"{path}: cannot be opened again (Is a directory), so events go on into the file that "
        "was open"
    )
    assert (tmp_path / "log.1").read_bytes() == b"one\n"


def test_a_full_pipe_in_packet_mode_is_not_ready(tmp_path: Path) -> None:
    """As many packets as the pipe has buffers, however small they are."""
    fifo = tmp_path / "events"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with Sink(str(fifo), packets=True) as sink:
        written = 0
        while sink.ready():
            sink.write([b"event"])
            written += 1
        assert written == fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ) // select.PIPE_BUF
        os.read(reader, 8192)
        assert sink.ready()
    os.close(reader)
