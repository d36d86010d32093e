"""Places in small objects of every shape, against addr2line of binutils."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.symbolize import Frame, Place, PortableAddress, Symbolizer

SOURCE = """
int sink;
static inline __attribute__((always_inline)) int leaf(int a)
{
    if (a > 3)
        sink += a;
    return a * sink;
}
static inline __attribute__((always_inline)) int middle(int a)
{
    int sum = 0;
    for (int i = 0; i < a; i++)
        sum += leaf(i);
    return sum;
}
int outer(int a)
{
    int one = middle(a);
    return one + leaf(a + 1);
}
__attribute__((section(".init.text"))) int other(int a)
{
    return middle(a) - 7;
}
__attribute__((cold)) int rare(int a)
{
    return leaf(a) ^ 5;
}
int main(void)
{
    return outer(sink) + other(sink) + rare(sink);
}
"""
SHAPES = {
    "dwarf 5": ["-gdwarf-5"],
    "dwarf 4": ["-gdwarf-4"],
    "dwarf 3": ["-gdwarf-3", "-gstrict-dwarf"],
    "compressed": ["-gdwarf-5", "-gz=zlib"],
    "zdebug": ["-gdwarf-4", "-gz=zlib-gnu"],
    "no aranges": ["-gdwarf-5", "-O1"],
}


def build(folder: Path, options: list[str], *, linked: bool) -> Path:
    """A module, called ``small``, or a vmlinux, with a build-id."""
    (folder / "small.c").write_text(SOURCE)
    name = "vmlinux" if linked else "small.ko"
    command = ["gcc", "-O2", "-fno-pie", "-ffunction-sections", *options, "small.c"]
    kind = ["-no-pie"] if linked else ["-no-pie", "-nostdlib", "-r"]
    subprocess.run([*command, *kind, "-Wl,--build-id=sha1", "-o", name], cwd=folder, check=True)
    return folder / name


def build_id(path: Path) -> str:
    notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True)
    found = re.search(r"Build ID: ([0-9a-f]+)", notes.stdout)
    assert found is not None
    return found[1]


def code_sections(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, address, size) of what has code, as readelf says."""
    listed = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True)
    row = re.compile(r"\] (\.\S*text\S*) +PROGBITS +(\w+) \w+ (\w+) \w+ +AX", re.MULTILINE)
    for name, address, size in row.findall(listed.stdout):
        if int(size, 16):
            yield name, int(address, 16), int(size, 16)


def addr2line(path: Path, section: str, addresses: list[int]) -> list[list[tuple[str, str]]]:
    """For each address the chain of (function, file:line) of binutils, innermost first."""
    choice = ["-j", section] if path.suffix == ".ko" else []
    done = subprocess.run(
        ["addr2line", "-afi", *choice, "-e", path],
        input="\n".join(map(hex, addresses)),
        capture_output=True,
        text=True,
        check=True,
    )
    chains: list[list[str]] = []
    for line in done.stdout.splitlines():
        if line.startswith("0x"):
            chains.append([])
        else:
            chains[-1].append(line.split(" (discriminator")[0])
    return [list(zip(chain[::2], chain[1::2], strict=True)) for chain in chains]


def same_frame(ours: Frame, theirs: tuple[str, str]) -> bool:
    """Whether both name one function, file and line; binutils adds the build's folder."""
    function, place = theirs
    if function != ours.function:
        return False
    if not ours.file:
        return place.endswith(":?")
    return f"/{place}".endswith(f"/{ours.file}:{ours.line}")


@pytest.mark.parametrize("linked", [True, False], ids=["vmlinux", "module"])
@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_every_address_is_where_addr2line_says(
    tmp_path: Path, options: list[str], linked: bool
) -> None:
    path = build(tmp_path, options, linked=linked)
    if options[-1] == "-O1":
        subprocess.run(["objcopy", "--remove-section", ".debug_aranges", path], check=True)
    identity, seen, deep = build_id(path), 0, 0
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        for section, start, size in code_sections(path):
            chains = addr2line(path, section, [start + offset for offset in range(size)])
            for offset, chain in enumerate(chains):
                module = "" if linked else "small"
                address = PortableAddress(identity, module, section, offset)
                place = symbolizer.place(address)
                if chain[0][1].startswith("??"):
                    continue  # start-up code of the C library, which has no lines
                assert place is not None, (section, offset, symbolizer.reason(address))
                assert len(place.frames) == len(chain), (section, offset, place, chain)
                assert all(map(same_frame, place.frames, chain)), (section, offset, place, chain)
                seen += 1
                deep += len(chain) == 3
    assert seen > 100
    assert deep > 5


def test_place_of_an_inlined_function(tmp_path: Path) -> None:
    path = build(tmp_path, ["-gdwarf-5"], linked=False)
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        places = [
            symbolizer.place(PortableAddress(build_id(path), "small", ".text.outer", offset))
            for offset in range(40)
        ]
    line = SOURCE.splitlines().index("    int one = middle(a);") + 1
    loop = SOURCE.splitlines().index("        sum += leaf(i);") + 1
    chains = {place.frames[1:] for place in places if place and len(place.frames) == 3}
    assert chains == {(Frame("middle", "small.c", loop), Frame("outer", "small.c", line))}
    assert [place.offset for place in places if place] == list(range(40))
    assert {place.function for place in places if place} == {"outer"}


def test_split_dwarf_names_the_function_and_says_what_is_missing(tmp_path: Path) -> None:
    path = build(tmp_path, ["-gdwarf-5", "-gsplit-dwarf"], linked=True)
    listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    (outer,) = (int(line[:16], 16) for line in listed.splitlines() if line.endswith(" T outer"))
    (text,) = (start for name, start, _ in code_sections(path) if name == ".text")
    address = PortableAddress(build_id(path), "", ".text", outer - text)
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        place = symbolizer.place(address)
    rows = subprocess.run(
        ["readelf", "--debug-dump=decodedline", path], capture_output=True, text=True, check=True
    )
    # the last row of an address is the one that counts
    *_, line = re.findall(rf"^small\.c +(\d+) +{outer:#x}\b", rows.stdout, re.MULTILINE)
    assert place is not None
    assert place[:3] == ("outer", 0, (Frame("outer", "small.c", int(line)),))
    assert place.note.startswith("split DWARF: the .dwo files are not read")


def test_dwarf_of_64_bit_says_the_same(tmp_path: Path) -> None:
    """binutils 2.40 cannot read it: the same code with DWARF of 32 bit is the measure."""
    places = []
    for name, options in ("32", []), ("64", ["-gdwarf64"]):
        (tmp_path / name).mkdir()
        path = build(tmp_path / name, ["-gdwarf-5", *options], linked=False)
        with Symbolizer([tmp_path / name], tmp_path / "cache") as symbolizer:
            addresses = [
                PortableAddress(build_id(path), "small", section, offset)
                for section, _, size in code_sections(path)
                for offset in range(size)
            ]
            places.append([symbolizer.place(address) for address in addresses])
    assert None not in places[0]
    assert places[0] == places[1]


def packaged(tmp_path: Path, where: str, path: Path) -> Path:
    """A root with the file at ``where``, in which {id} stands for parts of the build-id."""
    identity = build_id(path)
    target = tmp_path / "root" / where.format(id=f"{identity[:2]}/{identity[2:]}")
    target.parent.mkdir(parents=True)
    shutil.copy(path, target)
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("where", "module"),
    [
        (".build-id/{id}.debug", "small"),
        ("lib/modules/1/kernel/fs/small.ko", "small"),
        ("usr/lib/modules/1/kernel/fs/.debug/small.ko.debug", "small"),
        ("fs/small/small.ko", "small"),
        ("lib/modules/1/kernel/fs/sm-all.ko", "sm_all"),
        ("vmlinux", ""),
        ("boot/vmlinux-1", ""),
        ("lib/modules/1/build/vmlinux", ""),
    ],
)
def test_where_debug_files_are_found(tmp_path: Path, where: str, module: str) -> None:
    path = build(tmp_path, ["-g"], linked=not module)
    root = packaged(tmp_path, where, path)
    section = ".text.outer" if module else ".text"
    address = PortableAddress(build_id(path), module, section, 1)
    with Symbolizer([root], tmp_path / "cache") as symbolizer:
        assert symbolizer.place(address) is not None, symbolizer.reason(address)


def test_a_file_of_another_build_is_not_taken(tmp_path: Path) -> None:
    build(tmp_path, ["-g"], linked=False)
    address = PortableAddress("ab" * 20, "small", ".text.outer", 1)
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        assert symbolizer.place(address) is None
        assert symbolizer.reason(address) == (f"no debug file of small with build-id {'ab' * 20}")


def test_a_file_without_debug_information(tmp_path: Path) -> None:
    path = build(tmp_path, ["-g0"], linked=False)
    address = PortableAddress(build_id(path), "small", ".text.outer", 1)
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        assert symbolizer.place(address) is None
        assert symbolizer.reason(address) == f"{path} has no debug information"


@pytest.mark.parametrize(
    "address",
    [
        PortableAddress("../../etc", "small", ".text", 0),
        PortableAddress("ab" * 20, "../*", ".text", 0),
        PortableAddress("", "", "", 0),
    ],
)
def test_names_that_are_paths_or_patterns(tmp_path: Path, address: PortableAddress) -> None:
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        assert symbolizer.place(address) is None
        assert symbolizer.reason(address) == "no build-id or name of a module"
    assert not (tmp_path / "cache").exists()


def test_the_index_outlives_the_debug_file(tmp_path: Path) -> None:
    path = build(tmp_path, ["-g"], linked=False)
    address = PortableAddress(build_id(path), "small", ".text.outer", 1)
    places: list[Place | None] = []
    for _ in range(2):
        with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
            places.append(symbolizer.place(address))
        path.unlink(missing_ok=True)
    assert places[0] is not None
    assert places[0] == places[1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "other version", "empty"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = build(tmp_path, ["-g"], linked=False)
    address = PortableAddress(build_id(path), "small", ".text.outer", 1)
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        good = symbolizer.place(address)
    files = {file: file.read_bytes() for file in (tmp_path / "cache").glob("*/*")}
    assert len(files) == 2  # the table of units and one unit
    for file, data in files.items():
        bad = {
            "cut": data[:-1],
            "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
            "other version": data[:8] + b"\xff" + data[9:],
            "empty": b"",
        }[damage]
        assert bad != data
        file.write_bytes(bad)
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        assert symbolizer.place(address) == good
    assert {file: file.read_bytes() for file in (tmp_path / "cache").glob("*/*")} == files


def test_many_writers_of_one_index(tmp_path: Path) -> None:
    path = build(tmp_path, ["-g"], linked=False)
    address = PortableAddress(build_id(path), "small", ".text.outer", 1)
    symbolizers = [Symbolizer([tmp_path], tmp_path / "cache") for _ in range(6)]
    for symbolizer in symbolizers:
        assert symbolizer.known(address) is None  # all workers run from here on
    places = [symbolizer.place(address) for symbolizer in symbolizers]
    for symbolizer in symbolizers:
        symbolizer.close()
    assert places[0] is not None
    assert set(places) == {places[0]}
    assert len([*(tmp_path / "cache").glob("*/*")]) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    path = build(tmp_path, ["-g"], linked=False)
    (tmp_path / "file").touch()
    address = PortableAddress(build_id(path), "small", ".text.outer", 1)
    with Symbolizer([tmp_path], tmp_path / "file/cache") as symbolizer:
        assert symbolizer.place(address) is not None


def test_nothing_is_asked_of_the_network_by_default(tmp_path: Path) -> None:
    assert "DEBUGINFOD_URLS" not in os.environ
    with Symbolizer([tmp_path], tmp_path / "cache") as symbolizer:
        assert symbolizer.place(PortableAddress("ab" * 20, "nothing", ".text", 0)) is None
    assert not (tmp_path / "cache/downloads").exists()
