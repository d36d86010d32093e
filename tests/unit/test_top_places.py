"""Sites of ``top`` get their line from debug files, and nothing waits for it."""

from __future__ import annotations

from pathlib import Path

from fserr_bpf.model.event import FsErrorEvent, Fsid, Origin
from fserr_bpf.symbolize import PortableAddress, Symbolizer
from fserr_bpf.top.model import Board
from fserr_bpf.top.places import Places
from fserr_bpf.uapi.dev import Dev
from tests.live.conftest import wait_until
from tests.unit.test_symbolize import addr2line, build, build_id


def error_at(address: PortableAddress | None, function: str) -> FsErrorEvent:
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
        function=function,
        failaddr=0xFFFFFFFFC0001234,
        address=address,
    )
    return FsErrorEvent(Fsid(1, 2), None, 117, 1, 3, origin=origin)


def test_lines_come_when_they_are_known(tmp_path: Path) -> None:
    path = build(tmp_path, ["-g"], linked=False)
    ((innermost, *_),) = addr2line(path, ".text.outer", [8])
    known = PortableAddress(build_id(path), "small", ".text.outer", 8)
    unknown = PortableAddress("ab" * 20, "small", ".text", 8)
    board = Board()
    with Places(Symbolizer([tmp_path], tmp_path / "cache")) as places:
        for event in (error_at(known, "a"), error_at(unknown, "b"), error_at(None, "c")):
            board.add(event)
            places.see(event)
        names = [row.what.name for row in places.named(board.snapshot()).sites]
        assert names == ["a", "b", "c"]  # asked for, not waited for
        expected = f"{innermost[0]}:{innermost[1].rpartition(':')[2]}"

        def told() -> bool:
            found = [row.what.name for row in places.named(board.snapshot()).sites]
            return found == [expected, "b", "c"]

        wait_until(told, f"the name {expected}")
    assert [row.what.name for row in board.snapshot().sites] == ["a", "b", "c"]
