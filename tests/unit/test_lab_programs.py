"""What the lab compiles ahead: type information out of files, and for which targets."""

from __future__ import annotations

import gzip
import lzma
import sys
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf.probes.cache import file_name
from fserr_bpf.probes.target import MODULES
from fserr_bpf_compare.machines import programs
from fserr_bpf_compare.machines.bzimage import vmlinux_of
from fserr_bpf_compare.machines.packages import Image
from fserr_bpf_compare.machines.tools import output_of

VMLINUX = b"\x7fELF and so on" * 100


def bzimage(path: Path, payload: bytes) -> Path:
    """As Documentation/arch/x86/boot.rst describes it: 2 setup sectors, then the payload."""
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    head[0x248:0x24C] = (16).to_bytes(4, "little")
    head[0x24C:0x250] = (len(payload) + 4).to_bytes(4, "little")
    size = len(VMLINUX).to_bytes(4, "little")
    path.write_bytes(bytes(head) + bytes(16) + payload + size + b"what comes behind")
    return path


@pytest.mark.parametrize("packed", ["xz", "gzip", "zstd"])
def test_vmlinux_comes_out_of_a_bzimage(packed: str, tmp_path: Path) -> None:
    if packed == "zstd":
        try:
            payload = output_of("zstd", "-qc", data=VMLINUX)
        except LabError as error:
            pytest.skip(str(error))
    else:
        payload = (lzma if packed == "xz" else gzip).compress(VMLINUX)
    assert vmlinux_of(bzimage(tmp_path / "vmlinuz", payload)) == VMLINUX


def test_other_packing_and_damage_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is packed in a way that is not known here"):
        vmlinux_of(bzimage(tmp_path / "vmlinuz", b"\x02\x21\x4c\x18 as lz4 begins"))
    damaged = bytearray(lzma.compress(VMLINUX))
    damaged[20] ^= 1
    with pytest.raises(LabError, match="cannot be unpacked"):
        vmlinux_of(bzimage(tmp_path / "vmlinuz", bytes(damaged)))


def test_sections_are_found_by_name() -> None:
    elf = Path(sys.executable).read_bytes()
    assert programs.section(elf, ".interp") == b"/lib64/ld-linux-x86-64.so.2\0"
    assert programs.section(elf, ".BTF") == b""


def test_targets_differ_and_the_likeliest_is_first(tmp_path: Path) -> None:
    btf, modules = tmp_path / "btf", tmp_path / "6.12"
    for folder in (btf, modules):
        folder.mkdir()
    for name in ("vmlinux", *MODULES):
        (btf / name).write_bytes(name.encode())
    (modules / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    # this kernel has no others
    (modules / "modules.dep").write_text("kernel/fs/xfs/xfs.ko.xz:\n")
    modular = list(programs.targets(Image(tmp_path, modules, "6.12"), btf))
    assert len({file_name(target.key()) for target in modular}) == len(modular)
    assert [target.loaded for target in modular] == [{"ext4", "xfs"}] * 4 + [{"ext4"}] * 4
    assert not modular[0].detail
    assert all(target.kprobes and not target.running for target in modular)
    built_in = list(programs.targets(Image(tmp_path, None, "6.12"), btf))
    assert {target.loaded for target in built_in} == {frozenset(MODULES)}
