"""Places in Debian's kernels, against addr2line and drgn; the running kernel, against kallsyms.

FSERR_SYMBOL_ADDRESSES is how many random addresses of each file are compared; setting it
also fetches the debug packages, 1 GB each, into the cache of the lab. Without it 200 are
compared if the packages are there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf.kernel.kallsyms import shows_addresses
from fserr_bpf.symbolize import Frame, PortableAddress, RunningKernel, Symbolizer
from fserr_bpf_compare.bench.symbolbench import MODULES, debug_cached, debug_file, debug_tree
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.mapper import DEVICE_FAULTS as FAILING
from fserr_bpf_compare.machines import kernels, vm
from tests.live.conftest import IN_LAB, skip
from tests.live.drgn_places import DrgnFile
from tests.unit.test_symbolize import addr2line, build_id, code_sections, same_frame

FETCH = "FSERR_SYMBOL_ADDRESSES" in os.environ
ADDRESSES = int(os.environ.get("FSERR_SYMBOL_ADDRESSES", "200"))
AGREEMENT = 0.995


@pytest.fixture(params=["6.12", "6.1"])
def tree(request: pytest.FixtureRequest) -> Path:
    if IN_LAB:
        skip("debug packages are compared on the host", expected=True)
    kernel = kernels.find(request.param)
    if not FETCH and not debug_cached(kernel):
        skip("1 GB of symbols is not fetched unless FSERR_SYMBOL_ADDRESSES is set", expected=True)
    try:
        return debug_tree(kernel)
    except LabError as error:
        skip(str(error), expected=False)


def elfutils_agrees(path: Path, address: int, ours: Frame) -> bool:
    """Whether the line of ``address`` is ours, where binutils has another one.

    It has binutils bug 30783, fixed in 2.42: a line program of DWARF 5 begins with file 1,
    older ones take file 0 until the program sets one. The line is right, the file is not.
    """
    choice = ["-j", ".text"] if path.suffix == ".ko" else []
    done = subprocess.run(
        ["eu-addr2line", *choice, "-e", path, hex(address)],
        capture_output=True,
        text=True,
        check=True,
    )
    file_line, _, _column = done.stdout.strip().rpartition(":")
    return f"/{file_line}".endswith(f"/{ours.file}:{ours.line}")


@pytest.mark.parametrize("module", MODULES, ids=["xfs", "vmlinux"])
def test_random_addresses(tree: Path, module: str, tmp_path: Path) -> None:
    if shutil.which("eu-addr2line") is None:
        skip("no eu-addr2line; apt-get install elfutils", expected=False)
    path = debug_file(tree, module)
    (text,) = (found for found in code_sections(path) if found[0] == ".text")
    _, start, size = text
    offsets = sorted(random.Random(module).sample(range(size), ADDRESSES))
    chains = addr2line(path, ".text", [start + offset for offset in offsets])
    identity, explained, different = build_id(path), 0, []
    with Symbolizer([tree], tmp_path) as symbolizer:
        for offset, chain in zip(offsets, chains, strict=True):
            place = symbolizer.place(PortableAddress(identity, module, ".text", offset))
            assert place is not None, hex(offset)
            assert [frame.function for frame in place.frames] == [name for name, _ in chain]
            assert all(map(same_frame, place.frames[1:], chain[1:])), (hex(offset), place, chain)
            if not same_frame(place.frames[0], chain[0]):
                if elfutils_agrees(path, start + offset, place.frames[0]):
                    explained += 1
                else:
                    different.append((hex(offset), place.frames[0], chain[0]))
    print(f"{path.name}: {ADDRESSES} addresses, {explained} of bug 30783, {different}")
    assert len(different) <= ADDRESSES * (1 - AGREEMENT), different


@pytest.mark.parametrize("module", MODULES, ids=["xfs", "vmlinux"])
def test_random_addresses_with_drgn(tree: Path, module: str, tmp_path: Path) -> None:
    path = debug_file(tree, module)
    (text,) = (found for found in code_sections(path) if found[0] == ".text")
    offsets = sorted(random.Random(module).sample(range(text[2]), ADDRESSES))
    theirs, identity, told, different = DrgnFile(path), build_id(path), 0, []
    with Symbolizer([tree], tmp_path) as symbolizer:
        for offset in offsets:
            place = symbolizer.place(PortableAddress(identity, module, ".text", offset))
            assert place is not None, hex(offset)
            ours = [(f.function, os.path.normpath(f.file), f.line) for f in place.frames]
            chain = theirs.chain(offset)
            if not chain:
                continue
            told += 1
            # in assembler a label, or the function that it is in: both are symbols
            assembler = chain[0][1].endswith(".S")
            names = [frame[0] for frame in chain]
            assert assembler or [frame[0] for frame in ours] == names, hex(offset)
            if [frame[1:] for frame in ours] != [frame[1:] for frame in chain]:
                different.append((hex(offset), ours, chain))
    assert told > ADDRESSES * 0.6, "drgn is silent between functions only"
    assert len(different) <= ADDRESSES * (1 - AGREEMENT), different


def test_the_running_kernel_is_where_kallsyms_says() -> None:
    """_text is the start of .text of vmlinux: KASLR and section of an address in it."""
    if not shows_addresses():
        skip("this process may not see kernel addresses", expected=False)
    kernel = RunningKernel()
    assert kernel.hidden == ""
    known: dict[str, int] = {}
    with open("/proc/kallsyms", encoding="ascii") as table:
        for line in table:
            start, _, name, *module = line.split()
            if not module:
                known.setdefault(name, int(start, 16))
    for name in ("_text", "vfs_read", "filemap_read"):
        address = kernel.portable(known[name] + 3)
        assert address is not None
        assert address[1:] == ("", ".text", known[name] + 3 - known["_text"])
        assert bytes.fromhex(address.build_id) in Path("/sys/kernel/notes").read_bytes()
    assert kernel.portable(0) is None
    assert kernel.portable(known["_text"] - 1) is None
    assert kernel.portable((1 << 64) - 1) is None


def test_hidden_addresses_are_said_with_the_remedy() -> None:
    """As nobody, to whom the kernel shows zeros."""
    code = (
        "import os; os.setgid(65534); os.setuid(65534)\n"
        "from fserr_bpf.symbolize import RunningKernel\n"
        "kernel = RunningKernel(); print(kernel.hidden); print(kernel.portable(1 << 63))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    hidden, place = done.stdout.splitlines()
    assert hidden.startswith("the kernel hides its addresses, so places are not resolved; ")
    assert place == "None"


LAB = """
import sys
from fserr_bpf.symbolize import RunningKernel, Symbolizer
kernel = RunningKernel()
assert kernel.hidden == "", kernel.hidden
names = {"xfs": ["xfs_dinode_verify", "xfs_buf_ioend"], "ext4": ["ext4_fill_super"]}
names[""] = ["vfs_read", "filemap_read"]
with open("/proc/kallsyms") as table:
    lines = [line.split() for line in table]
with Symbolizer([sys.argv[1]], "/tmp/cache") as symbolizer:
    for address, _, name, *module in lines:
        module = module[0].strip("[]") if module else ""
        if name in names.get(module, ()):
            portable = kernel.portable(int(address, 16) + 4)
            place = portable and symbolizer.place(portable)
            print(module, name, place and (place.function, place.offset, place.frames[-1].file))
"""


def test_modules_of_a_kernel_with_kaslr(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Booted: load addresses of modules and vmlinux there, debug files from here."""
    release = tree.name
    (name,) = (
        k.name for k in kernels.KERNELS if release.startswith(f"{k.name}.") and k.name != "7"
    )
    loads = "modprobe ext4 && modprobe xfs && exec "
    command = ["sh", "-c", loads + '"$@"', "sh", sys.executable, "-c", LAB, str(tree)]
    assert vm.run(kernels.find(name), command, timeout=300) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == [
        " filemap_read ('filemap_read', 4, 'mm/filemap.c')",
        " vfs_read ('vfs_read', 4, 'fs/read_write.c')",
        "ext4 ext4_fill_super ('ext4_fill_super', 4, 'fs/ext4/super.c')",
        "xfs xfs_buf_ioend ('xfs_buf_ioend', 4, 'fs/xfs/xfs_buf.c')",
        "xfs xfs_dinode_verify ('xfs_dinode_verify', 4, 'fs/xfs/libxfs/xfs_inode_buf.c')",
    ]


def test_failaddr_of_every_xfs_fault(tree: Path, tmp_path: Path) -> None:
    """Recorded in a machine, resolved here: on another host, with another kernel."""
    (kernel,) = (k for k in kernels.KERNELS if debug_cached(k) and debug_tree(k) == tree)
    loads = 'modprobe xfs && modprobe ext4 && exec "$@" >"$FSERR_LAB_OUTPUT/events"'
    guest = ["sh", "-c", loads, "sh", sys.executable, "-m", "tests.live.recorded_faults"]
    assert vm.run(kernel, guest, timeout=400, output=tmp_path) == 0
    lines = (tmp_path / "events").read_text().splitlines()
    origins = [json.loads(line)["origin"] for line in lines]
    faults = sum(f.fstype == "xfs" for f in FAULTS)
    assert len(origins) >= faults + sum(f.fstype == "xfs" and bool(f.proposed) for f in FAILING)
    with Symbolizer([tree], tmp_path / "cache") as symbolizer:
        for origin in origins:
            address = PortableAddress(**origin["address"])
            place = symbolizer.place(address)
            assert place is not None, origin
            path = debug_file(tree, address.module)
            start = next(s for name, s, _ in code_sections(path) if name == address.section)
            (chain,) = addr2line(path, address.section, [start + address.offset])
            assert [frame.function for frame in place.frames] == [name for name, _ in chain]
            assert all(
                same_frame(ours, theirs) or elfutils_agrees(path, start + address.offset, ours)
                for ours, theirs in zip(place.frames, chain, strict=True)
            ), (origin, place, chain)
            # kallsyms' name there, without what the compiler has put behind it
            assert place.function == origin["function"]
