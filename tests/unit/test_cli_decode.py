"""``fserr-bpf decode`` as a process: files, live pipes, closed pipes, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from fserr_bpf.cli import main
from fserr_bpf.codec.fanotify import encode
from fserr_bpf.model.event import (
    Event,
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.schema import from_dict
from fserr_bpf.outputs.text import line

COMMAND = [sys.executable, "-c", "from fserr_bpf.cli import entry; entry()", "decode"]
FSID = Fsid(0x88888888, 0x88888888)
EVENTS: list[Event] = [
    FsErrorEvent(FSID, None, 117, 1, 3859),
    OverflowEvent(),
    FsErrorEvent(FSID, FileHandle(1, bytes(8)), -5, 2, 1, pidfd=4),
    OtherEvent(0x100, 7, -1),
]
RAW = b"".join(map(encode, EVENTS))
MSGPACK = b"".join(map(FORMATS["msgpack"].encode, EVENTS))


def run(*arguments: str, data: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], input=data, capture_output=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def text_of(events: list[Event]) -> str:
    return "".join(line(event) + "\n" for event in events)


@pytest.mark.parametrize("source", ["auto", "raw", "msgpack"])
@pytest.mark.parametrize("data", [RAW, MSGPACK], ids=["raw data", "msgpack data"])
def test_source_is_given_or_found_out(source: str, data: bytes) -> None:
    code, out, err = run("--from", source, "-", data=data)
    if source == "auto" or data == {"raw": RAW, "msgpack": MSGPACK}[source]:
        assert (code, out, err) == (0, text_of(EVENTS), "")
    else:
        assert (code, out) == (9, "")
        assert err.startswith("fserr-bpf: offset 0: ")
        assert err.count("\n") == 1


def test_json_of_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events"
    path.write_bytes(RAW)
    assert main(["decode", str(path), "--format", "json"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [from_dict(json.loads(text)) for text in lines] == EVENTS


def test_raw_lengths_that_look_like_a_msgpack_map_are_raw() -> None:
    # event_len 0x84, 0x88, 0x8c are fixmap markers; 0xa1 then is a msgpack key of one letter
    for length in (0x80, 0x84, 0x88, 0x8C, 0xA184):
        data = bytes(length - 28)
        event = OtherEvent(1, 1, -1, (InfoRecord(8, 0, data),))
        assert encode(event)[0] == length & 0xFF
        assert run(data=encode(event)) == (0, text_of([event]), "")


def test_empty_input_is_no_events() -> None:
    assert run() == (0, "", "")


@pytest.mark.parametrize("data", [RAW, MSGPACK], ids=["raw", "msgpack"])
@pytest.mark.parametrize("rest", [b"\xc1", b"\x18", b"\x84\xa1", bytes(24)])
def test_good_events_are_printed_before_the_error(data: bytes, rest: bytes) -> None:
    code, out, err = run(data=data + rest)
    assert (code, out) == (9, text_of(EVENTS))
    assert err.startswith(f"fserr-bpf: offset {len(data)}: ")
    assert err.count("\n") == 1


def test_msgpack_that_is_no_event() -> None:
    code, out, err = run(data=msgpack.packb({"some": 1, "thing": 2}))
    assert (code, out, err) == (9, "", "fserr-bpf: offset 0: event key 'v' is missing\n")


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    code, out, err = run(str(tmp_path / name))
    assert (code, out) == (2, "")
    assert err.startswith(f"fserr-bpf: cannot read '{tmp_path / name}': ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("encode_one", [encode, FORMATS["msgpack"].encode], ids=["raw", "msgpack"])
def test_a_live_pipe_is_printed_as_it_comes(encode_one: object) -> None:
    assert callable(encode_one)
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for event in EVENTS:
            data = encode_one(event)
            for part in (data[:1], data[1:30], data[30:]):
                os.write(process.stdin.fileno(), part)
            # blocks for ever if it waits for more: the pipe stays open
            assert process.stdout.readline().decode() == line(event) + "\n"
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_a_reader_that_goes_away_is_not_worth_a_word(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(RAW * 5000)
    with subprocess.Popen(
        [*COMMAND, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 7


def test_a_full_disk_is_an_output_error() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            COMMAND, input=RAW, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 7
    assert done.stderr == (
        b"fserr-bpf: cannot write to standard output: No space left on device; "
        b"redirect it elsewhere\n"
    )
