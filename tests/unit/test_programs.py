"""Compiled programs as bytes, the maps in their instructions, and what their key consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fserr_bpf.kernel.bpf import MapDefinition
from fserr_bpf.probes.cache import file_name
from fserr_bpf.probes.programs import BadFile, Programs, replace_maps
from fserr_bpf.probes.table import PROBES, Kernel, Kind, candidates
from fserr_bpf.probes.target import Target, digest
from fserr_bpf.uapi.record import Probe

# struct bpf_insn: code, registers, off, imm; "lddw r1, map 7", "lddw r2, 7", "exit"
LOAD_MAP = bytes.fromhex("18110000 07000000 00000000 00000000")
LOAD_NUMBER = bytes.fromhex("18020000 07000000 00000000 00000000")
EXIT = bytes.fromhex("95000000 00000000")

KERNEL = Kernel(kprobes=True, fserror=False, abort=False, sick=True, gate=True)
PROGRAMS = Programs(
    {"release": "6.12", "detail": "False"},
    "bcc 0.26.0",
    KERNEL,
    frozenset({"xfs_mount_m_super"}),
    {"events": MapDefinition(27, 0, 0, 4096, 0), "lost": MapDefinition(2, 4, 8, 32, 1024)},
    {"one": replace_maps(LOAD_MAP, {7: 1}) + EXIT, "two": LOAD_NUMBER + EXIT},
)


def test_file_gives_back_what_was_written() -> None:
    assert Programs.decode(PROGRAMS.encode()) == PROGRAMS


def test_first_line_has_version_length_and_digest_of_the_rest() -> None:
    """What docs/compiled-programs.md lets people check by hand."""
    line, _, body = PROGRAMS.encode().partition(b"\n")
    assert line.decode() == f"FSERR-BPF PROGRAMS 1 {len(body)} {digest(body)}"
    # b2sum -l 256 of "abc"
    known = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
    assert digest(b"abc") == known


def test_every_flipped_bit_is_noticed() -> None:
    data = PROGRAMS.encode()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(BadFile):
                Programs.decode(bytes(changed))


def test_every_truncation_and_addition_is_noticed() -> None:
    data = PROGRAMS.encode()
    for length in range(len(data)):
        with pytest.raises(BadFile):
            Programs.decode(data[:length])
    with pytest.raises(BadFile):
        Programs.decode(data + b"\n")


def test_other_version_is_told_from_damage() -> None:
    data = PROGRAMS.encode()
    with pytest.raises(BadFile, match=r"^not a file of this version$"):
        Programs.decode(data.replace(b"PROGRAMS 1", b"PROGRAMS 2"))
    with pytest.raises(BadFile, match=r"^damaged$"):
        Programs.decode(data[:-1])


def test_maps_are_replaced_and_equal_numbers_are_not() -> None:
    """Neither a number that looks like a map, nor the second half of a wide instruction."""
    second_half_like_a_load = LOAD_NUMBER[:8] + LOAD_MAP[:8]
    code = LOAD_MAP + second_half_like_a_load + EXIT
    expected = bytes.fromhex("18110000 2a000000 00000000 00000000") + code[16:]
    assert replace_maps(code, {7: 42}) == expected


def test_descriptors_go_in_by_name() -> None:
    code = PROGRAMS.with_maps("one", {"lost": 11, "events": 10})
    assert code == replace_maps(LOAD_MAP, {7: 11}) + EXIT
    assert PROGRAMS.with_maps("two", {"lost": 11, "events": 10}) == LOAD_NUMBER + EXIT


@pytest.fixture
def target(tmp_path: Path) -> Target:
    for name in ("vmlinux", "ext4", "xfs"):
        (tmp_path / name).write_bytes(name.encode())
    return Target(
        btf=tmp_path,
        release="6.12",
        machine="x86_64",
        loaded=frozenset({"ext4", "btrfs"}),
        kprobes=True,
        detail=False,
        places=False,
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda target: (target.btf / "vmlinux").write_bytes(b"vmlinuy"),
        lambda target: (target.btf / "ext4").write_bytes(b"ext5"),
        lambda target: (target.btf / "btrfs").write_bytes(b"now it has"),
        lambda target: replace(target, release="6.13"),
        lambda target: replace(target, machine="aarch64"),
        lambda target: replace(target, loaded=frozenset({"ext4"})),
        lambda target: replace(target, loaded=frozenset({"ext4", "btrfs", "xfs"})),
        lambda target: replace(target, kprobes=False),
        lambda target: replace(target, detail=True),
        lambda target: replace(target, places=True),
        lambda target: replace(target, pid_namespace=4026531999),
    ],
)
def test_key_changes_with_everything(target: Target, change: Callable[[Target], object]) -> None:
    before = target.key()
    changed = change(target)
    after = (changed if isinstance(changed, Target) else target).key()
    assert before != after
    assert file_name(before) != file_name(after)


def test_key_stays_with_what_does_not_matter(target: Target) -> None:
    """A module that is not loaded is not read."""
    before = target.key()
    (target.btf / "xfs").write_bytes(b"other")
    assert target.key() == before


def test_candidates_by_kprobes_and_types() -> None:
    spec = next(spec for spec in PROBES if spec.probe is Probe.XFS_BUF_TRACE)
    assert [a.kind for a in candidates(spec, {"xfs_mount_m_super"}, kprobes=True)] == [
        Kind.TRACEPOINT
    ]
    assert [a.kind for a in candidates(spec, set(), kprobes=True)] == [Kind.CLASSIC]
    writeback = next(spec for spec in PROBES if spec.probe is Probe.WRITEBACK)
    assert [a.kind for a in candidates(writeback, set(), kprobes=True)] == [Kind.KPROBE]
    assert [a.kind for a in candidates(writeback, set(), kprobes=False)] == [Kind.TRACEPOINT]
