"""Captures: the files of a run, their names and index, and what was there before."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf_compare.report.capture import keep
from fserr_bpf_compare.verdict.cells import Cell, Read

EVENT = (
    struct.pack("<IBBHQii", 56, 3, 0, 24, 0x8000, -1, 258)
    + struct.pack("<BBHIIIi", 1, 0, 20, 0x11, 0x22, 0, 0xFF)
    + struct.pack("<BBHiI", 5, 0, 12, 117, 1)
)
CELL = Cell(
    kernel="6.12",
    release="6.12.117+deb13-amd64",
    scenario="ext4_trigger",
    stream="native",
    real=(Read(8, b"", 22), Read(65536, EVENT), Read(0, EVENT)),
    emulated=(Read(8, b"", 22), Read(65536, EVENT), Read(0, b"")),
    trigger=("sh -c x -> 0",),
)
REAL, EMULATED = "6.12-ext4_trigger.real.bin", "6.12-ext4_trigger.emulated.bin"


def index_of(directory: Path) -> list[dict[str, Any]]:
    index = json.loads((directory / "index.json").read_text())
    assert index["v"] == 1
    captures: list[dict[str, Any]] = index["captures"]
    return captures


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_streams_are_kept_as_they_were_read(tmp_path: Path) -> None:
    keep(tmp_path / "new" / "captures", [CELL])
    directory = tmp_path / "new" / "captures"
    assert names_in(directory) == {REAL, EMULATED, "index.json"}
    assert (directory / REAL).read_bytes() == EVENT * 2
    assert (directory / EMULATED).read_bytes() == EVENT


def test_the_index_says_what_the_bytes_mean(tmp_path: Path) -> None:
    keep(tmp_path, [CELL])
    (entry,) = index_of(tmp_path)
    emulated, real = entry.pop("emulated"), entry.pop("real")
    assert entry == {
        "kernel": "6.12",
        "release": "6.12.117+deb13-amd64",
        "scenario": "ext4_trigger",
        "stream": "native",
        "basis": "probes",
        "trigger": ["sh -c x -> 0"],
    }
    assert real["file"] == REAL
    assert len(real["events"]) == 2
    assert emulated["file"] == EMULATED
    assert emulated["reads"] == [
        {"size": 8, "bytes": 0, "errno": 22},
        {"size": 65536, "bytes": 56, "errno": 0},
        {"size": 0, "bytes": 0, "errno": 0},
    ]
    (event,) = emulated["events"]
    words = {key: event[key] for key in ("type", "fsid", "handle", "errno", "error_count", "pid")}
    assert words == {
        "type": "fs_error",
        "fsid": "00000011:00000022",
        "handle": None,
        "errno": "EFSCORRUPTED",
        "error_count": 1,
        "pid": 258,
    }


def test_bytes_without_meaning_are_kept_too(tmp_path: Path) -> None:
    keep(tmp_path, [CELL._replace(real=(Read(0, EVENT + b"\xff"),))])
    (entry,) = index_of(tmp_path)
    assert (tmp_path / REAL).read_bytes() == EVENT + b"\xff"
    assert len(entry["real"]["events"]) == 1
    assert entry["real"]["error"].startswith("offset 56: ")
    assert "error" not in entry["emulated"]


def test_a_cell_that_never_read_has_no_files(tmp_path: Path) -> None:
    keep(tmp_path, [CELL._replace(real=(), emulated=(), not_run="no tool")])
    assert names_in(tmp_path) == {"index.json"}
    assert index_of(tmp_path) == []


def test_names_are_safe_and_never_meet(tmp_path: Path) -> None:
    kernels = ["/a/bzImage", "/b/bzImage", "./a b", "./a_b", "a_b", "../..", "x/.hidden", "x/"]
    keep(tmp_path, [CELL._replace(kernel=kernel) for kernel in kernels])
    entries = index_of(tmp_path)
    assert [entry["kernel"] for entry in entries] == kernels
    files = [entry[side]["file"] for entry in entries for side in ("real", "emulated")]
    assert len(set(files)) == 2 * len(kernels)
    assert names_in(tmp_path) == {*files, "index.json"}
    assert not any(name.startswith(".") or " " in name for name in files)
    assert files[0].startswith("bzImage~")


def test_what_was_there_stays_and_the_same_cell_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    other = CELL._replace(scenario="ext4_abort")
    keep(tmp_path, [CELL, other])
    keep(tmp_path, [CELL._replace(release="6.12.999", real=(Read(0, b""),))])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / REAL).read_bytes() == b""
    assert (tmp_path / "6.12-ext4_abort.real.bin").read_bytes() == EVENT * 2
    known = [(entry["scenario"], entry["release"]) for entry in index_of(tmp_path)]
    assert known == [("ext4_trigger", "6.12.999"), ("ext4_abort", CELL.release)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"v": 2, "captures": []}', '{"v": 1}'])
def test_somebody_elses_index_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(LabError, match=r"index\.json is not an index of captures; give another"):
        keep(tmp_path, [CELL])
    assert (tmp_path / "index.json").read_text() == text
    assert names_in(tmp_path) == {"index.json"}


def test_a_directory_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot keep captures in .*: \w[^\n]*; give another"):
        keep(tmp_path / "file" / "below", [CELL])


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    keep(tmp_path, [CELL])
    before = (tmp_path / "index.json").read_bytes()
    (tmp_path / f"{REAL}.partial").mkdir()
    with pytest.raises(LabError, match="Is a directory"):
        keep(tmp_path, [CELL._replace(real=(Read(0, b""),))])
    assert (tmp_path / REAL).read_bytes() == EVENT * 2
    assert (tmp_path / "index.json").read_bytes() == before
