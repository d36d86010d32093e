"""Debug files that were made to do harm: every one ends in a place or in a reason."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fserr_bpf.symbolize import PortableAddress, Symbolizer, client, worker
from tests.unit.test_symbolize import build, build_id

MODULE = PortableAddress("", "small", ".text.outer", 5)


class Good:
    """A good file, and one Symbolizer for all the damaged copies of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = build(folder, ["-gdwarf-5"], linked=False)
        self.address = MODULE._replace(build_id=build_id(path))
        self.data = path.read_bytes()
        self.sections = dict(self._sections(path))
        path.unlink()
        self._tries = 0

    def _sections(self, path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
        listed = subprocess.run(
            ["readelf", "-SW", path], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            words = line.partition("]")[2].split()
            if len(words) > 5 and words[0].startswith((".debug", ".rela.debug", ".symtab")):
                yield words[0], (int(words[3], 16), int(words[4], 16))

    def place_of(self, data: bytes) -> str:
        """The reason, "" for a place; a fresh process, a fresh index."""
        self._tries += 1
        root = self.folder / str(self._tries)
        root.mkdir()
        (root / "small.ko").write_bytes(data)
        with Symbolizer([root], root / "cache") as symbolizer:
            place = symbolizer.place(self.address)
            reason = symbolizer.reason(self.address)
        assert (place is None) == (reason != "")
        assert "\n" not in reason
        return reason


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    found = Good(tmp_path_factory.mktemp("good"))
    assert found.place_of(found.data) == ""
    return found


SLOW = settings(  # each example is a process: 40 of the usual 100
    max_examples=settings().max_examples * 2 // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SLOW
@given(share=st.floats(0, 1))
def test_cut_files(good: Good, share: float) -> None:
    good.place_of(good.data[: int(share * len(good.data))])


@SLOW
@given(data=st.data())
def test_files_with_wrong_bytes(good: Good, data: st.DataObject) -> None:
    start, size = good.sections[data.draw(st.sampled_from(sorted(good.sections)))]
    damaged = bytearray(good.data)
    for at in data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)):
        damaged[start + at] = data.draw(st.integers(0, 255))
    good.place_of(bytes(damaged))


@SLOW
@given(data=st.data())
def test_wrong_section_headers(good: Good, data: st.DataObject) -> None:
    (table,) = struct.unpack_from("<Q", good.data, 40)
    (count,) = struct.unpack_from("<H", good.data, 60)
    damaged = bytearray(good.data)
    for at in data.draw(st.lists(st.integers(0, count * 64 // 8 - 1), min_size=1, max_size=5)):
        number = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
        struct.pack_into("<Q", damaged, table + at * 8, number)
    good.place_of(bytes(damaged))


def with_sections(file: bytes, new: dict[bytes, bytes], flags: int = 0) -> bytes:
    """``file`` with these sections instead of its own."""
    data = bytearray(file)
    (table,) = struct.unpack_from("<Q", data, 40)
    (count, names) = struct.unpack_from("<HH", data, 60)
    (strings,) = struct.unpack_from("<Q", data, table + names * 64 + 24)
    for header in range(table, table + count * 64, 64):
        (name,) = struct.unpack_from("<I", data, header)
        text = bytes(data[strings + name : strings + name + 40]).split(b"\0", 1)[0]
        if text in new:
            struct.pack_into("<Q", data, header + 8, flags)
            struct.pack_into("<QQ", data, header + 24, len(data), len(new[text]))
            data += new[text]
    return bytes(data)


def many(good: Good, entries: int) -> bytes:
    """The good file with a unit of that many functions."""
    abbreviations = (
        b"\x01\x11\x01\x11\x01\x12\x07\0\0"  # a unit with low_pc and high_pc
        b"\x02\x2e\x00\x11\x01\x12\x07\0\0\0"  # a function with the same
    )
    head = struct.pack("<HBBI", 5, 1, 8, 0)
    body = struct.pack("<BQQ", 1, 0, 1 << 40) + struct.pack("<BQQ", 2, 0, 1 << 40) * entries
    info = struct.pack("<I", len(head) + len(body)) + head + body
    new = {b".debug_info": info, b".debug_abbrev": abbreviations}
    return with_sections(good.data, new | {b".rela.debug_info": b"", b".debug_aranges": b""})


def test_more_functions_than_memory(good: Good, tmp_path: Path) -> None:
    (tmp_path / "small.ko").write_bytes(many(good, 2_000_000))
    code = (
        "import resource, sys; from fserr_bpf.symbolize import PortableAddress, Symbolizer\n"
        f"address = PortableAddress{tuple(good.address)!r}\n"
        "with Symbolizer([sys.argv[1]], sys.argv[1]) as symbolizer:\n"
        "    assert symbolizer.place(address) is None\n"
        "    print(symbolizer.reason(address))\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    reason, peak = done.stdout.splitlines()
    assert reason in ("damaged debug file: MemoryError", client.GAVE_UP)
    # what the worker has mapped of the file, some 40 MB, is in it too
    assert int(peak) * 1024 < worker.MEMORY + (100 << 20)


def test_few_functions_of_that_kind_are_fine(good: Good) -> None:
    """The file above fails for its size alone."""
    assert good.place_of(many(good, 10)) == ""


@pytest.mark.parametrize(
    ("size", "reason"),
    [(1 << 40, f"a section of {1 << 40} bytes"), (1 << 20, "a compressed section is damaged")],
)
def test_a_section_that_lies_about_its_size(good: Good, size: int, reason: str) -> None:
    zeros = struct.pack("<IIQQ", 1, 0, size, 1) + zlib.compress(bytes(1 << 24))
    bad = with_sections(good.data, {b".debug_info": zeros[:1000]}, flags=0x800)
    assert good.place_of(bad) == f"damaged debug file: {reason}"


def test_names_without_end(good: Good) -> None:
    endless = with_sections(good.data, {b".strtab": b"x" * 200_000 + b"\0"})
    reason = good.place_of(endless)
    assert reason.startswith("damaged debug file: a message of 2")


def test_a_worker_that_dies_is_replaced(good: Good, tmp_path: Path) -> None:
    (tmp_path / "small.ko").write_bytes(good.data)
    before = children()
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        first = symbolizer.place(good.address)
        (child,) = children() - before
        os.kill(child, 9)
        killed = symbolizer.place(good.address._replace(offset=6))
        reason = symbolizer.reason(good.address._replace(offset=6))
        after = symbolizer.place(good.address._replace(offset=7))
    assert first is not None
    assert (killed, reason) == (None, client.GAVE_UP)
    assert after is not None
    assert children() <= before


def children() -> set[int]:
    """Processes that this one has started and not waited for."""
    return {int(pid) for pid in Path("/proc/thread-self/children").read_text().split()}
