"""The real command, ``fserr-bpf probes``: what it says is what is attached."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.cli.probes import EXIT_BLIND
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.probes.cache import cache_folder, file_name
from fserr_bpf.probes.target import Target
from fserr_bpf_compare.machines.kernels import find
from fserr_bpf_compare.machines.packages import ensure
from fserr_bpf_compare.machines.programs import type_information
from tests.live.conftest import IN_LAB, kernel_version, skip

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("file_systems")]

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
EXT4_EMITTERS = ("ext4_error", "ext4_error_inode", "ext4_error_file", "ext4_std_error")
HIDDEN_ON_5_10 = {
    *("xfs_buf_verifier", "xfs_buf_ioerror", "xfs_inode_verifier", "xfs_shutdown"),
    *("xfs_corruption", "xfs_buf_corrupt", "xfs_end", "ext4_end"),
    *("btrfs_error", "btrfs_device", "btrfs_end"),
}
# their modules are loaded by those who have such file systems
RARE = re.compile("f2fs|fat|nilfs2|jfs|ocfs2")
# enough to see everything that the kernel itself reports, and everything of 7.x
SEEING = ("native", "fserror")


def probes(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [COMMAND, "probes", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def answer(file_systems: None) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON; once, because attaching takes its time in an emulated machine."""
    status, output = probes("--json")
    return status, json.loads(output)


def test_json_tells_how_each_probe_is_attached(answer: tuple[int, dict[str, Any]]) -> None:
    status, report = answer
    assert (report["v"], report["kernel"]) == (1, os.uname().release)
    assert report["kprobes"] == KPROBE_PMU.exists()
    assert set(report["blind"]) == {"native", "fserror", "proposed"}
    rows = {row["probe"]: row for row in report["probes"]}
    assert len(rows) == len(report["probes"])
    for row in rows.values():
        assert bool(row["attached"]) == (row["reason"] is None), row
        assert row["streams"]
    kinds = {
        name: [attached["as"] for attached in row["attached"]]
        for name, row in rows.items()
        if row["attached"] or not RARE.match(name)
    }
    if report["kprobes"] and kernel_version() == (5, 10):
        # Debian's modules of that kernel have no type information
        assert {name for name, attached in kinds.items() if not attached} == HIDDEN_ON_5_10
        assert kinds["xfs_buf_trace"] == ["tracepoint"]
        assert kinds["ext4_abort"] == ["kprobe"]
        assert all(report["blind"].values())
        assert status == EXIT_BLIND
    elif report["kprobes"]:
        assert [name for name, attached in kinds.items() if not attached] == []
        assert not any(report["blind"].values())
        assert kinds["btrfs_error"] == kinds["sb_delete"] == ["kprobe"]
        assert status == 0
    elif kernel_accepts_fs_error():
        assert all(kinds[name] == ["fanotify group"] for name in EXT4_EMITTERS)
        assert kinds["ext4_trace"] == kinds["writeback"] == ["raw tracepoint"]
        assert "fatal btrfs errors" in report["blind"]["proposed"]["the kernel has no kprobes"]
        assert status == EXIT_BLIND


def test_readme_says_how_this_kernel_is_seen(answer: tuple[int, dict[str, Any]]) -> None:
    _, report = answer
    name = os.environ.get("FSERR_LAB")
    if not name:
        if report["kprobes"] or kernel_version() != (6, 18):
            skip("the README's table has no row for this kernel", expected=True)
        name = "6.18 without kprobes"
    cells = []
    for prefix in ("ext4_", "xfs_", "writeback", "btrfs_"):
        rows = [row for row in report["probes"] if row["probe"].startswith(prefix)]
        kinds = {attached["as"] for row in rows for attached in row["attached"]}
        cells.append(", ".join(sorted(kinds)) or "not seen")
    whole = [stream for stream, missing in report["blind"].items() if not missing]
    line = " | ".join([*cells, ", ".join(whole) or "none"])
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    row = rf"^\| {re.escape(name)} \([^)]*\) \| {re.escape(line)} \|$"
    assert re.search(row, readme, re.MULTILINE), line


def test_host_has_the_type_information_of_this_machine() -> None:
    """From the bzImage and the modules, for what the lab compiles ahead."""
    if not IN_LAB:
        skip("only a machine of the lab has a host", expected=True)
    folder = type_information(ensure(find(os.environ["FSERR_LAB"])))
    if folder is None:
        skip("the modules of this kernel have none", expected=kernel_version() == (5, 10))
    names = {file.name for file in folder.iterdir()}
    assert names >= {"vmlinux", "ext4", "xfs", "btrfs"}
    for name in names:
        assert (folder / name).read_bytes() == Path("/sys/kernel/btf", name).read_bytes(), name
    key = Target.here(detail=False, places=False).key()
    assert (cache_folder() / file_name(key)).exists()


@pytest.mark.usefixtures("fast_attaching")
@pytest.mark.parametrize("stream", ["native", "fserror", "proposed"])
def test_table_and_exit_code_are_those_of_the_stream(stream: str) -> None:
    status, output = probes("--stream", stream)
    lines = output.splitlines()
    assert lines[0].startswith(f"kernel {os.uname().release}: ")
    (verdict,) = (line for line in lines if line.startswith(f"stream {stream}: "))
    assert verdict == f"stream {stream}: " + ("cannot see" if status else "sees everything")
    assert status in {0, EXIT_BLIND}
    if kernel_version() == (5, 10):
        assert status == EXIT_BLIND
    elif KPROBE_PMU.exists() or (stream in SEEING and kernel_accepts_fs_error()):
        assert status == 0
    else:
        assert status == EXIT_BLIND
