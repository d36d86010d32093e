"""``fserr-bpf compare --images`` as its user types it, on images that are damaged here."""

from __future__ import annotations

import gzip
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf_compare.corpus import xfs
from fserr_bpf_compare.faults.scratch import run, scratch
from fserr_bpf_compare.images import files, limited
from tests.live.conftest import IN_LAB, skip
from tests.live.machine import require_machine
from tests.live.test_compare import BROKEN, SAME, compare, outcomes

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


def damaged_ext4(folder: Path) -> Path:
    """A file whose inode says that it is deleted, and one that cannot be: found by a look-up."""
    content = folder / "content"
    content.mkdir()
    for name in ("bad", "good"):
        (content / name).write_text(name)
    image = folder / "ext4"
    run("mkfs.ext4", "-q", "-d", str(content), str(image), "8m")
    run("debugfs", "-w", "-R", "set_inode_field bad links_count 0", str(image))
    shutil.rmtree(content)
    return image


def damaged_xfs(folder: Path) -> Path:
    """A directory whose inode has a size that cannot be."""
    prototype = folder / "prototype"
    prototype.write_text("x\n0 0\nd--755 0 0\ndir d--755 0 0\n$\n$\n")
    image = folder / "xfs"
    with image.open("xb") as file:
        file.truncate(36 << 20)  # an emulated machine unpacks a usual one for a minute
    small = ("--unsupported", "-d", "agcount=2", "-l", "size=1368b")
    run("mkfs.xfs", "-q", *small, "-p", str(prototype), str(image))
    run("xfs_db", "-x", "-c", "path /dir", "-c", "fuzz -d core.size ones", str(image))
    prototype.unlink()
    return image


# Healthy ones, and how they are made; without their tools they are left out.
HEALTHY = {
    "btrfs": (128 << 20, ("mkfs.btrfs", "-q")),
    "f2fs": (64 << 20, ("mkfs.f2fs", "-q")),
    "vfat": (16 << 20, ("mkfs.vfat",)),
}


def healthy(folder: Path) -> None:
    for name, (size, command) in HEALTHY.items():
        if shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin"):
            with (folder / name).open("xb") as file:
                file.truncate(size)
            run(*command, str(folder / name))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with them, two packed, and with what is none."""
    folder = tmp_path_factory.mktemp("images")
    image = damaged_ext4(folder)
    (folder / "ext4.gz").write_bytes(gzip.compress(image.read_bytes(), 1))
    run("zstd", "-q", "--rm", str(damaged_xfs(folder)))
    healthy(folder)
    image.unlink()
    (folder / "notes").write_text("text")
    return folder


def check(judged: dict[str, dict[str, Any]], *, here: bool, probes: bool) -> None:
    """The outcomes of `images` beside a group of the kernel, and what the log has beyond."""
    assert judged.keys() >= {"btrfs", "ext4.gz", "xfs.zst"}
    for name, one in judged.items():
        if here and one["outcome"] == "not run":
            assert name in HEALTHY
            assert one["reason"] == f"this kernel has no {name}"
        else:
            assert one["outcome"] == "same", (name, one["reason"])
            assert one["reached"] in ("L0", "L2")
            assert "files written" in str(one["cell"]["trigger"])
    damaged, corrupt = judged["ext4.gz"]["cell"], judged["xfs.zst"]["cell"]
    assert damaged["heard"]["ext4_lookup"] >= 2  # of who read it, and of who changed it
    assert any(read["data"] for read in damaged["real"])
    assert any("ext4_lookup" in message for message in damaged["log"])
    assert damaged["unheard"] == []
    steps = [step.partition(" -> ")[0] for step in damaged["trigger"]]
    assert steps == [
        *("unpack", "losetup", "mount", "read", "remount", "write", "umount", "losetup --detach"),
    ]
    assert all(" -> 0" in step for step in damaged["trigger"])
    assert "failed: EFSCORRUPTED x" in damaged["trigger"][3]
    assert sum(corrupt["heard"].values()) > 0
    if probes:
        assert corrupt["unheard"] == []


def test_here(images: Path, scratch_space: Path, tmp_path: Path) -> None:
    if IN_LAB:
        skip("the host compares this kernel from outside", expected=True)
    (tmp_path / "truncated").write_bytes((images / "ext4.gz").read_bytes()[:-9])
    with gzip.open(images / "ext4.gz") as packed:
        data = bytearray(packed.read())
    data[2048:65536] = bytes(63488)  # group descriptors and bitmaps
    (tmp_path / "unmountable").write_bytes(data)
    report, capture = tmp_path / "r", tmp_path / "c"
    done = compare(
        scratch_space,
        *("--images", str(images), str(tmp_path / "truncated"), str(tmp_path / "unmountable")),
        *("--report", str(report), "--capture", str(capture)),
    )
    assert done.returncode == BROKEN, done.stdout + done.stderr
    assert "xfs, btrfs, f2fs, vfat: notes\n" in done.stderr
    judged = outcomes(report)
    truncated = judged.pop("truncated")
    assert truncated["outcome"] == "broken"
    assert "truncated cannot be unpacked" in truncated["reason"]
    refused = judged.pop("unmountable")
    assert refused["outcome"] == "not run"
    assert re.fullmatch(r"the kernel does not mount it: [A-Z][\w ]+", refused["reason"])
    assert refused["cell"]["mounting"] > 0
    check(judged, here=True, probes=KPROBE_PMU.exists())
    assert (capture / "here-ext4.gz.real.bin").stat().st_size > 0
    page = (report / "index.html").read_text()
    assert f"sudo fserr-bpf compare --here --images {images / 'ext4.gz'} --stream" in page
    assert "images of xfs" in page


def test_beside_the_log(images: Path, scratch_space: Path, tmp_path: Path) -> None:
    """No group of a stock kernel sends ``proposed``: each error of its log is an event."""
    if IN_LAB:
        skip("the host compares this kernel from outside", expected=True)
    image = str(images / "ext4.gz")
    words = ("--stream", "proposed", "--report", str(tmp_path / "r"))
    done = compare(scratch_space, "--images", image, *words)
    assert done.returncode == SAME, done.stdout + done.stderr
    (judged,) = outcomes(tmp_path / "r").values()
    assert (judged["cell"]["witness"], judged["reached"]) == ("log", None)
    assert judged["cell"]["real"] == []
    assert judged["cell"]["heard"]["ext4_lookup"] >= 2


def test_stock_kernel(images: Path, scratch_space: Path, tmp_path: Path) -> None:
    if KPROBE_PMU.exists():
        skip("this kernel has kprobes: test_here plays with probes", expected=True)
    require_machine("6.12")
    words = ("--kernel", "6.12", "--report", str(tmp_path / "r"))
    done = compare(scratch_space, "--images", str(images), *words)
    assert done.returncode == SAME, done.stdout + done.stderr
    judged = outcomes(tmp_path / "r")
    assert {one["cell"]["basis"] for one in judged.values()} == {"probes"}
    check(judged, here=False, probes=True)


def test_nothing_to_play(scratch_space: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    for words in (["--images", str(tmp_path)], ["--images", "/nowhere"]):
        done = compare(scratch_space, *words)
        assert done.returncode == BROKEN
        (line,) = done.stderr.splitlines()
        assert line.startswith("fserr-bpf: ")
    done = compare(scratch_space, "--images", str(tmp_path), "--scenario", "ext4_trigger")
    assert done.returncode == BROKEN
    assert done.stderr == (
        "fserr-bpf: --images is instead of scenarios; leave out --scenario, --list and --offline\n"
    )


def test_process_that_hangs_in_the_kernel_is_given_up(
    scratch_space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen file system lets no writer go, not even one that was killed."""
    monkeypatch.setattr(limited, "KILL", 0.3)
    begin = time.monotonic()
    with scratch("ext4") as fs:

        def write() -> str:
            (fs.mount_point / "new").mkdir()
            return "never"

        run("fsfreeze", "--freeze", str(fs.mount_point))
        try:
            ended = limited.limited(write, 0.2)
        finally:
            run("fsfreeze", "--unfreeze", str(fs.mount_point))
    assert ended == limited.Ended(None, "", late=True)
    assert time.monotonic() - begin < 30


def test_corpus_of_xfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly each damage of the table changes something, so that there are more than 200."""
    if IN_LAB:
        skip("xfs_db needs no kernel; the host runs it", expected=True)
    assert len(list(xfs.damages())) >= 220
    monkeypatch.setattr(xfs, "_SEEDS", range(1, 2))
    monkeypatch.setattr(xfs, "_VERBS", ("ones",))
    tried = [f"{damage.name}.gz" for damage in xfs.damages()]
    count = xfs.make(tmp_path / "xfs")
    made = sorted(path.name for path in (tmp_path / "xfs").iterdir())
    assert len(made) == count >= 0.95 * len(tried)
    assert set(made) <= set(tried)
    assert files.recognise(tmp_path / "xfs/blocktrash-inode-01.gz") == "xfs"
