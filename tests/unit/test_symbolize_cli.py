"""``fserr-bpf symbolize`` on recorded streams, and debug files from a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fserr_bpf.cli import main
from fserr_bpf.codec.fanotify import encode
from fserr_bpf.codec.proposed import DetailedError, detailed_error_record
from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, Origin, OverflowEvent
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.outputs.text import line
from fserr_bpf.symbolize import PortableAddress, Symbolizer
from fserr_bpf.uapi.dev import Dev
from tests.unit.test_symbolize import SOURCE, addr2line, build, build_id


def event_at(address: PortableAddress | None) -> FsErrorEvent:
    origin = Origin(
        *(
            1_700_000_000_000_000_000,
            Dev(7, 0),
            "loop0",
            "/mnt",
            "xfs",
            12,
            1,
            3,
            "cat",
            "kprobe:x",
        ),
        failaddr=0xFFFFFFFFC0001234,
        address=address,
    )
    return FsErrorEvent(Fsid(1, 2), None, 117, 1, 3, origin=origin)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/fserr-bpf/symbols"


def test_json_lines_are_resolved_anywhere(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build(tmp_path, ["-g"], linked=False)
    deep = next(
        offset
        for offset, chain in enumerate(addr2line(path, ".text.outer", list(range(60))))
        if len(chain) == 3
    )
    address = PortableAddress(build_id(path), "small", ".text.outer", deep)
    elsewhere = PortableAddress("ab" * 20, "sm\x1ball", ".te\nxt", 5)
    events: list[Event] = [event_at(address), event_at(elsewhere), event_at(None), OverflowEvent()]
    (tmp_path / "events").write_bytes(b"".join(map(FORMATS["json"].encode, events)))
    assert main(["symbolize", "--debug-dir", str(tmp_path), str(tmp_path / "events")]) == 0
    ((leaf, middle, outer),) = addr2line(path, ".text.outer", [deep])
    expected = [
        line(events[0]),
        f"    leaf at small.c:{leaf[1].rpartition(':')[2]}, inlined into",
        f"    middle at small.c:{middle[1].rpartition(':')[2]}, inlined into",
        f"    outer at small.c:{outer[1].rpartition(':')[2]}, outer+{deep:#x} [small]",
        line(events[1]),
        "    .te\\x0axt+0x5 [sm\\x1ball]: no build-id or name of a module",
        line(events[2]),
        line(events[3]),
    ]
    assert capsys.readouterr().out.splitlines() == expected
    assert cache.is_dir()


@pytest.mark.parametrize(
    ("fstype", "source", "call"),
    [
        ("xfs", "kprobe:xfs_buf_verifier_error", False),
        ("xfs", "kprobe:__filemap_set_wb_err", True),
        ("ext4", "kprobe:__ext4_error", True),
    ],
)
@pytest.mark.usefixtures("cache")
def test_return_addresses_are_looked_up_before(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fstype: str,
    source: str,
    call: bool,
) -> None:
    """The first byte of a line belongs to it as a check, to the line before as a return."""
    path = build(tmp_path, ["-g"], linked=False)
    lines = [chain[-1][1] for chain in addr2line(path, ".text.outer", list(range(60)))]
    first = next(offset for offset in range(1, 60) if lines[offset] != lines[offset - 1])
    address = PortableAddress(build_id(path), "small", ".text.outer", first)
    event = event_at(address)
    assert event.origin is not None
    event = event._replace(origin=event.origin._replace(fstype=fstype, source=source))
    (tmp_path / "events").write_bytes(FORMATS["json"].encode(event))
    assert main(["symbolize", "--debug-dir", str(tmp_path), str(tmp_path / "events")]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    expected = lines[first - 1 if call else first].rpartition(":")[2]
    assert f"outer at small.c:{expected}, outer+" in said


def test_raw_streams_have_addresses_of_this_boot_only(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event = FsErrorEvent(
        Fsid(1, 2), None, 117, 1, 3, extra=(detailed_error_record(DetailedError(1, failaddr=5)),)
    )
    (tmp_path / "raw").write_bytes(encode(event) * 2)
    assert main(["symbolize", str(tmp_path / "raw")]) == 0
    captured = capsys.readouterr()
    assert captured.out == 2 * (line(event) + "\n")  # 5 is no address of the kernel
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("fserr-bpf: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"v":1\n', "offset 0: not a line of JSON: "),
        (b'{"v":4}\n', "offset 0: event key 'v' is 4, not 3\n"),
        (b"[" * 100000, "offset 0: "),
        (b"{" + b'"a":{' * 100000, "offset 0: not a line of JSON: "),
    ],
)
def test_what_is_no_stream(
    tmp_path: Path, data: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").write_bytes(data)
    assert main(["symbolize", str(tmp_path / "bad")]) == 9
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fserr-bpf: {message}")
    assert captured.err.count("\n") == 1


def test_good_lines_come_before_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = FORMATS["json"].encode(OverflowEvent())
    (tmp_path / "bad").write_bytes(good + b"nothing\n")
    assert main(["symbolize", str(tmp_path / "bad")]) == 9
    captured = capsys.readouterr()
    assert captured.out == line(OverflowEvent()) + "\n"
    assert captured.err.startswith(f"fserr-bpf: offset {len(good)}: ")


@pytest.mark.parametrize("arguments", [["missing"], ["--debug-dir", "missing", "file"]])
def test_what_cannot_be_read(
    tmp_path: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["symbolize", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


class _Server(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what it was asked for."""

    asked: list[str]

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.asked.append(f"{self.path} {code}")

    def log_error(self, *_: object) -> None:
        """The request is remembered already."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Server]]:
    (tmp_path / "served").mkdir()

    class Handler(_Server):
        asked: list[str] = []  # noqa: RUF012 - of this test

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "served"))  # type: ignore[arg-type]

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,)).start()
        monkeypatch.setenv("DEBUGINFOD_URLS", f"http://127.0.0.1:{listening.server_port}")
        yield Handler
        listening.shutdown()


def test_debuginfod_is_asked_once(tmp_path: Path, server: type[_Server]) -> None:
    (tmp_path / "built").mkdir()
    path = build(tmp_path / "built", ["-g"], linked=False)
    identity = build_id(path)
    served = tmp_path / f"served/buildid/{identity}/debuginfo"
    served.parent.mkdir(parents=True)
    path.rename(served)
    address = PortableAddress(identity, "small", ".text.outer", 0)
    for offset in range(2):
        with Symbolizer([], tmp_path / "cache") as symbolizer:
            place = symbolizer.place(address._replace(offset=offset))
            assert place is not None
            assert place.frames[-1].function == "outer"
            assert (
                SOURCE.splitlines()[place.frames[-1].line - 1]
                in "int outer(int a)\n{\n    int one = middle(a);"
            )
    assert server.asked == [f"/buildid/{identity}/debuginfo 200"]


@pytest.mark.parametrize("answer", ["nothing", "another build", "garbage"])
def test_what_a_server_may_answer(tmp_path: Path, server: type[_Server], answer: str) -> None:
    served = tmp_path / f"served/buildid/{'ab' * 20}/debuginfo"
    served.parent.mkdir(parents=True)
    if answer == "another build":
        (tmp_path / "built").mkdir()
        build(tmp_path / "built", ["-g"], linked=False).rename(served)
    elif answer == "garbage":
        served.write_text("<html>")
    address = PortableAddress("ab" * 20, "small", ".text.outer", 0)
    with Symbolizer([], tmp_path / "cache") as symbolizer:
        assert symbolizer.place(address) is None
        reason = symbolizer.reason(address)
    assert len(server.asked) == 1
    assert {
        "nothing": "HTTP Error 404: File not found",
        "another build": "no debug file of small with build-id",
        "garbage": "Magic number does not match",
    }[answer] in reason
    assert "\n" not in reason
    assert list((tmp_path / "cache/downloads").iterdir()) == []
