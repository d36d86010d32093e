"""``compare --offline`` on files: what it prints and how it ends."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fserr_bpf_compare.report import offline

OVERFLOW = struct.pack("<IBBHQii", 24, 3, 0, 24, 0x4000, -1, 0)


def event(error: int = 117, count: int = 1, extra: bytes = b"") -> bytes:
    """An error of the superblock, by hand from linux/fanotify.h."""
    return (
        struct.pack("<IBBHQii", 56 + len(extra), 3, 0, 24, 0x8000, -1, 258)
        + struct.pack("<BBHIIIi", 1, 0, 20, 0x11, 0x22, 0, 0xFF)
        + struct.pack("<BBHiI", 5, 0, 12, error, count)
        + extra
    )


def compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: bytes, right: bytes
) -> tuple[int, list[str], str]:
    """The status, the lines of standard output, and standard error."""
    paths = tmp_path / "real.bin", tmp_path / "emulated.bin"
    for path, data in zip(paths, (left, right), strict=True):
        path.write_bytes(data)
    status = offline.main(*paths, colour=False)
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err


UNKNOWN = struct.pack("<BBHI", 42, 0, 8, 1)


@pytest.mark.parametrize(
    ("streams", "first", "status"),
    [
        ((event(), event()), "L0: the bytes are equal (56 and 56 bytes)", 0),
        ((b"", b""), "L0: the bytes are equal (0 and 0 bytes)", 0),
        (
            (event(), event(extra=UNKNOWN)),
            "L1: equal but for order and unknown info records (56 and 64 bytes)",
            1,
        ),
        (
            (event(count=2), event() * 2),
            "L2: the same errors, merged differently (56 and 112 bytes)",
            1,
        ),
        (
            (event(count=3), event()),
            "L3: the same kinds of errors, not as many (56 and 56 bytes)",
            1,
        ),
        ((event(), event(5)), "DIFFERENT: the errors differ (56 and 56 bytes)", 1),
    ],
)
def test_the_level_comes_first_and_decides_the_status(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    streams: tuple[bytes, bytes],
    first: str,
    status: int,
) -> None:
    seen, lines, errors = compared(tmp_path, capsys, *streams)
    assert (seen, lines[0], errors) == (status, first, "")


def test_both_are_shown_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, _ = compared(tmp_path, capsys, event(), event(5))
    assert lines[1].split() == ["real.bin", "|", "emulated.bin"]
    error = "05000c00 75000000 01000000", "05000c00 05000000 01000000"
    assert any(all(words in line for words in error) for line in lines)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (event() + event()[:-4], "offset 56: the data end after 52 of 56 bytes of an event"),
        (event() + b"msgpack", "offset 56: the data end after 7 of at least 24 bytes of an event"),
    ],
)
def test_what_is_no_stream_is_one_line_with_the_offset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, why: str
) -> None:
    # also if both are the same: equal garbage is no success
    for left, bad in ((event(), "emulated.bin"), (data, "real.bin")):
        status, lines, errors = compared(tmp_path, capsys, left, data)
        assert (status, lines) == (2, [])
        assert errors == f"fserr-bpf: {tmp_path / bad}: {why}\n"


def test_a_file_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offline.main(tmp_path / "none", tmp_path / "none", colour=False) == 2
    said = capsys.readouterr()
    assert said == ("", f"fserr-bpf: {tmp_path / 'none'}: No such file or directory\n")


def test_nonsense_without_end_is_refused_at_its_first_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither is read to its end: one has none, the other is 1 TB of zeros behind an event."""
    good = tmp_path / "good"
    good.write_bytes(event())
    os.truncate(good, 1 << 40)
    for real, at in ((Path("/dev/zero"), 0), (good, 56)):
        assert offline.main(real, good, colour=False) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"fserr-bpf: {real}: offset {at}: event_len at byte {at} is 0")


def _feed(fifo: Path, data: bytes) -> threading.Thread:
    """Somebody who writes it as often as somebody reads."""

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), fifo.open("wb", buffering=0) as pipe:
            while True:
                pipe.write(data)

    os.mkfifo(fifo)
    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_events_without_end_are_refused_at_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = [_feed(tmp_path / name, event() * 1000) for name in ("one", "other")]
    limit = 1 << 20
    assert offline.main(tmp_path / "one", tmp_path / "other", colour=False, limit=limit) == 2
    for thread in threads:
        thread.join()
    assert capsys.readouterr() == (
        "",
        f"fserr-bpf: {tmp_path / 'one'}: more than {limit} bytes through a pipe; "
        "give a file instead\n",
    )


def test_pipes_are_compared_as_files_are(tmp_path: Path) -> None:
    """A shell's <(...) can be read once only."""
    (tmp_path / "real").write_bytes(event() * 3 + event(5))
    (tmp_path / "emulated").write_bytes(event(count=3) + event(5))
    script = '"$0" -c "from fserr_bpf.cli import entry; entry()" compare --offline'
    outputs = []
    for files in ("real emulated", "<(cat real) <(cat emulated)"):
        done = subprocess.run(
            ["bash", "-c", f"{script} {files}", sys.executable],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
        outputs.append(done.stdout.splitlines())
        outputs[-1].pop(1)  # how the files are called
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == "L2: the same errors, merged differently (224 and 112 bytes)"


def test_megabytes_are_compared_and_a_closed_pipe_is_no_trouble(tmp_path: Path) -> None:
    stream = event() * 40_000  # 2.2 MB
    for name, data in (("one", stream), ("other", stream + OVERFLOW)):
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", "from fserr_bpf.cli import entry; entry()", "compare"]
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [*command, "--offline", "one", "other"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == (
            "DIFFERENT: the errors differ (2240000 and 2240024 bytes)\n"
        )
    assert child.returncode == 7  # OutputError, without a word
