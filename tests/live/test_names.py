"""Names of file systems, files and cgroups, against what the system's own tools say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fserr_bpf.helper.paths import Path as Found
from fserr_bpf.helper.paths import path_of
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.cgroups import cgroup_path
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.model.event import FileHandle, PathState
from fserr_bpf.names.volumes import Volume, volume_of
from fserr_bpf.uapi.dev import Dev
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import skip

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
HOSTILE = ["new\nline", "esc\x1b[31mape", "not utf-8 \udcff", "back\\slash", " (deleted)"]
FSTYPES = ["ext4", "xfs", "btrfs"]


def handle_of(path: Path) -> FileHandle:
    found = syscalls.name_to_handle_at(str(path), follow=False)
    return FileHandle(found.handle_type, found.f_handle)


def look_up(fs: Scratch, handle: FileHandle, name: str = "", at: Path | None = None) -> Found:
    point = str(at or fs.mount_point)
    (dev,) = {mount.dev for mount in read_mounts() if mount.mount_point == point}
    return path_of(point, dev, handle, name)


@pytest.mark.parametrize(
    ("fstype", "option", "label"),
    [("ext4", "-L", "täg \n"), ("xfs", "-L", "label"), ("btrfs", "-L", "two words")],
)
def test_volumes_are_those_of_blkid(fstype: str, option: str, label: str) -> None:
    with scratch(fstype, mkfs_options=(option, label)) as fs:
        found = volume_of(fs.device, fstype, fs.dev)
        moved = volume_of(fs.device, fstype, Dev(fs.dev.major, fs.dev.minor + 1))
        uuid = run("blkid", "--probe", "-s", "UUID", "-o", "value", fs.device).strip()
        other = volume_of(fs.device, "xfs" if fstype == "ext4" else "ext4", fs.dev)
    assert found == Volume(uuid, label)
    assert other == Volume()
    assert moved == (found if fstype == "btrfs" else Volume())


def test_a_device_that_is_none_has_no_volume(tmp_path: Path) -> None:
    assert volume_of("/dev/null", "ext4", Dev(1, 3)) == Volume()
    with pytest.raises(FileNotFoundError):
        volume_of(str(tmp_path / "none"), "ext4", Dev(1, 3))


@pytest.mark.parametrize("fstype", FSTYPES)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_exact(fstype: str, name: str) -> None:
    with scratch(fstype) as fs:
        file = fs.mount_point / name / name
        file.parent.mkdir()
        file.touch()
        handle = handle_of(file)
        assert look_up(fs, handle, f"{name}/{name}") == Found(str(file), PathState.EXACT)
        assert look_up(fs, handle) == Found(str(file), PathState.EXACT)


@pytest.mark.parametrize("fstype", FSTYPES)
def test_hard_links_have_several_names(fstype: str) -> None:
    with scratch(fstype) as fs:
        file, link = fs.mount_point / "file", fs.mount_point / "link"
        file.touch()
        link.hardlink_to(file)
        assert look_up(fs, handle_of(file), "link") == Found(str(link), PathState.SEVERAL)


@pytest.mark.parametrize("fstype", FSTYPES)
def test_a_deleted_file_is_stale(fstype: str) -> None:
    with scratch(fstype) as fs:
        file = fs.mount_point / "file"
        file.touch()
        handle = handle_of(file)
        with file.open():
            file.unlink()
            (fs.mount_point / "file (deleted)").touch()
            assert look_up(fs, handle, "file") == Found("", PathState.STALE)
        fs.remount_fresh()
        assert look_up(fs, handle, "file") == Found("", PathState.STALE)


@pytest.mark.parametrize("fstype", FSTYPES)
def test_a_file_nobody_has_looked_up_is_unknown_but_a_directory_is_not(fstype: str) -> None:
    with scratch(fstype) as fs:
        folder = fs.mount_point / "a" / "b"
        folder.mkdir(parents=True)
        (folder / "file").touch()
        file, there = handle_of(folder / "file"), handle_of(folder)
        fs.remount_fresh()
        assert look_up(fs, file) == Found("", PathState.UNKNOWN)
        assert look_up(fs, there) == Found(str(folder), PathState.EXACT)
        assert look_up(fs, file, "a/b/file") == Found(str(folder / "file"), PathState.EXACT)


def test_an_old_name_that_is_another_file_now_is_not_believed() -> None:
    with scratch("ext4") as fs:
        file, moved = fs.mount_point / "file", fs.mount_point / "moved"
        file.touch()
        handle = handle_of(file)
        file.rename(moved)
        file.touch()
        assert look_up(fs, handle, "file") == Found(str(moved), PathState.EXACT)


def test_below_a_bind_mount_and_not_through_another_file_system(tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    with scratch("ext4") as fs, scratch("ext4") as clone:
        folder = fs.mount_point / "folder"
        folder.mkdir()
        (folder / "file").touch()
        (clone.mount_point / "folder").mkdir()
        (clone.mount_point / "folder" / "file").touch()
        handle = handle_of(folder / "file")
        run("mount", "--bind", str(folder), str(bound))
        try:
            found = look_up(fs, handle, "folder/file", at=bound)
            assert found == Found(str(bound / "file"), PathState.EXACT)
            # covered by a file system whose inode has the same name
            run("mount", "--bind", str(clone.mount_point / "folder"), str(folder))
            try:
                assert look_up(fs, handle, "folder/file").path != str(folder / "file")
            finally:
                run("umount", str(folder))
        finally:
            run("umount", str(bound))


def test_cgroups_are_those_of_proc() -> None:
    points = [m.mount_point for m in read_mounts() if m.fstype == "cgroup2"]
    if not points:
        skip("no unified cgroup hierarchy is mounted", expected=True)
    group = Path(points[0], f"fserr-{os.getpid()}", "inner")
    group.mkdir(parents=True)
    try:
        move = 'echo $$ > "$0/cgroup.procs"; cat /proc/self/cgroup'
        said = subprocess.run(
            ["sh", "-c", move, group], capture_output=True, text=True, check=True
        ).stdout
        (path,) = [line.removeprefix("0::") for line in said.splitlines() if line[:3] == "0::"]
        assert cgroup_path(group.stat().st_ino) == path
        assert cgroup_path(1 << 40) == ""
    finally:
        group.rmdir()
        group.parent.rmdir()
