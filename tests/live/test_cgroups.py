"""Errors of one cgroup: of its processes, of those below it, of groups that are gone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.errors import UsageError
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.kernel.cgroups import tracks_writeback
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.marks.cgroups import CgroupFilter, find_cgroup, find_container
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.cutting import cut
from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import run, scratch
from tests.live.conftest import BY_NAME, wait_until
from tests.live.hearing import Ears, Options, fail_writes, ino, two_victims

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
TRIGGER = BY_NAME["ext4_trigger"]


@pytest.fixture(scope="module")
def placed(file_systems: None) -> Iterator[AttachedProbes]:
    with AttachedProbes([Stream.PROPOSED], places=True) as attached:
        yield attached


@pytest.fixture
def group(scratch_space: Path) -> Iterator[Path]:
    """A new cgroup; whatever is made below it goes too."""
    mounted = [m.mount_point for m in read_mounts() if m.fstype == "cgroup2"]
    point = Path(mounted[0]) if mounted else scratch_space / "cgroup"
    if not mounted:
        point.mkdir()
        run("mount", "-t", "cgroup2", "none", str(point))
    if tracks_writeback():  # only groups that have the controllers own pages
        (point / "cgroup.subtree_control").write_text("+memory +io")
    top = point / f"fserr-{os.getpid()}"
    top.mkdir()
    yield top
    for folder in (*sorted(top.rglob("*/"), reverse=True), top):
        wait_until(lambda f=folder: (f / "cgroup.procs").read_text() == "", "no process in it")  # type: ignore[misc]
        folder.rmdir()
    if not mounted:
        run("umount", str(point))


def entering(group: Path) -> tuple[str, ...]:
    """A command to be run in ``group``, by what comes before it."""
    return ("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group))


def filter_of(group: Path) -> Options:
    return Options(cgroup=CgroupFilter(str(group), owners=tracks_writeback()))


def test_of_its_processes_and_of_those_below(placed: AttachedProbes, group: Path) -> None:
    with two_victims("ext4") as (fs, inside, outside):
        top = Mark.filesystem(str(fs.mount_point))
        with Ears(placed, [fs.mount_point], filter_of(group), marked=top) as ears:
            here, there = ino(inside), ino(outside)
            below = group / "made" / "later"
            below.mkdir(parents=True)
            fail_writes(fs, inside, prefix=entering(below))
            fail_writes(fs, outside)
            heard = ears.after(here, there)
            other = ears.statistics("marked").dropped[DropReason.OTHER_CGROUP]
    assert heard == {"all": {here, there}, "marked": {here}}
    assert other > 0


def test_with_marks_both_must_hold(placed: AttachedProbes, group: Path) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        marks = {"subtree": Mark.subtree(str(inside.parent)), "inode": Mark.inode(str(outside))}
        with Ears(placed, [fs.mount_point], filter_of(group), **marks) as ears:
            here, there = ino(inside), ino(outside)
            fail_writes(fs, inside)
            fail_writes(fs, outside, prefix=entering(group))
            heard = ears.after(here, there)
    assert heard == {"all": {here, there}, "subtree": set(), "inode": {there}}


def test_a_group_that_is_gone_is_remembered(placed: AttachedProbes, group: Path) -> None:
    """Before anybody has looked at the error; with another of its name there now."""
    with two_victims("ext4") as (fs, inside, _):
        top = Mark.filesystem(str(fs.mount_point))
        gone = group / "gone"
        gone.mkdir()
        with Ears(placed, [fs.mount_point], filter_of(gone), marked=top) as ears:
            here = ino(inside)
            fail_writes(fs, inside, prefix=entering(gone))
            wait_until(lambda: (gone / "cgroup.procs").read_text() == "", "its end")
            gone.rmdir()
            gone.mkdir()
            heard = ears.after(here)
        with Ears(placed, [fs.mount_point], filter_of(gone), marked=top) as ears:
            fail_writes(fs, inside, prefix=entering(group))
            later = ears.after(here)
    assert heard == {"all": {here}, "marked": {here}}
    assert later == {"all": {here}, "marked": set()}


def test_who_wrote_owns_what_another_writes_back(placed: AttachedProbes, group: Path) -> None:
    """Where the kernel keeps that; elsewhere the error is that of the task that meets it."""
    with two_victims("ext4") as (fs, inside, _):
        top = Mark.filesystem(str(fs.mount_point))
        with Ears(placed, [fs.mount_point], filter_of(group), marked=top) as ears:
            here = ino(inside)
            with cut(fs, str(inside)):
                dd = ("dd", "if=/dev/zero", f"of={inside}", "bs=64k", "count=1", "conv=notrunc")
                assert run_child(*entering(group), *dd, path=str(inside)).returncode == 0
                assert run_child("sync", str(inside), path=str(inside)).returncode == 1
            heard = ears.after(here)
    assert heard == {"all": {here}, "marked": {here} if tracks_writeback() else set()}


def test_errors_of_the_superblock_are_of_the_task(placed: AttachedProbes, group: Path) -> None:
    with scratch("ext4") as fs:
        top = Mark.filesystem(str(fs.mount_point))
        path = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
        trigger = ("sh", "-c", 'echo x > "$0"', path)
        counts = []
        for prefix in ((), entering(group)):
            with Ears(placed, [fs.mount_point], filter_of(group), marked=top) as ears:
                subprocess.run([*prefix, *trigger], check=True)
                ears.after(0)
                counts.append(len(ears.heard["marked"]))
    assert counts == [0, 1]


@contextmanager
def folders(top: Path, *names: str) -> Iterator[list[Path]]:
    made = [top / name for name in names]
    for folder in made:
        folder.mkdir(parents=True)
    yield made


ID = "0123456789ab" + "c" * 52


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        (ID, f"docker-{ID}.scope"),
        (ID[:12], f"docker-{ID}.scope"),
        (ID, f"kubepods.slice/cri-containerd-{ID}.scope"),
        (ID[:20], f"libpod-{ID}.scope"),
        (ID[:12], ID),
        ("my-machine", r"machine-my\x2dmachine.scope"),
        ("web", "lxc.payload.web"),
        ("web", "deep/er/web"),
    ],
)
def test_containers_are_found(name: str, folder: str, group: Path) -> None:
    with folders(group, f"{folder}/inner", "other", f"docker-{ID[:12]}.scope") as (inner, _, _):
        if name == ID[:12]:
            (group / f"docker-{ID[:12]}.scope").rmdir()
        assert find_container(name) == str(inner.parent)


def test_containers_that_are_not_found(group: Path) -> None:
    with pytest.raises(UsageError, match="no cgroup of a container web; give its id"):
        find_container("web")
    with folders(group, "a/web", "b/lxc.payload.web") as made:
        with pytest.raises(UsageError) as error:
            find_container("web")
        assert str(error.value) == (
            f"several cgroups for a container web: {made[0]}, {made[1]}; "
            "give one of them with --cgroup"
        )


def test_cgroups_by_their_paths(group: Path) -> None:
    relative = f"/{group.name}"
    assert find_cgroup(relative) == find_cgroup(group.name) == find_cgroup(str(group)) == str(group)
    with pytest.raises(UsageError, match="/none: no such cgroup; give a path as /proc/PID/cgroup"):
        find_cgroup("/none")
