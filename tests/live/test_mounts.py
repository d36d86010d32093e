"""The mount table, judged by findmnt, stat and the kernel's own notices."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.errors import MarkError
from fserr_bpf.kernel.mounts import (
    Mount,
    MountWatch,
    mount_of,
    parse_mountinfo,
    preferred_mounts,
    read_mounts,
)
from fserr_bpf.marks.followed import followed_mounts
from fserr_bpf.uapi.dev import Dev
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import mount_points_below

pytestmark = pytest.mark.root

# Every character that mangle() in fs/seq_file.c escapes, and what looks like an escape.
ODD_NAME = "a b\tc\nd\\e\\040f#g"


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Path]:
    """A directory in which every mount is undone, the last one first."""
    yield tmp_path
    for mount in reversed(read_mounts()):
        if mount.mount_point.startswith(f"{tmp_path}/"):
            run("umount", "--lazy", mount.mount_point)
    assert mount_points_below(tmp_path) == []


def tmpfs(point: Path) -> Path:
    point.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=64k", "fserr-test", point)
    return point


def below(directory: Path) -> list[Mount]:
    return [mount for mount in read_mounts() if mount.mount_point.startswith(f"{directory}/")]


def test_parse_whole_lines() -> None:
    text = (
        b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n"
        b"37 36 0:45 / /a\\040b\\134x rw - fuse.some\\043fs  rw,user_id=0\n"
    )
    assert parse_mountinfo(text) == (
        Mount(
            *(36, 35, 98, 0, "/mnt1", "/mnt2", "ext3", "/dev/root"),
            *("rw,noatime", "rw,errors=continue"),
        ),
        Mount(37, 36, 0, 45, "/", "/a b\\x", "fuse.some#fs", "", "rw", "rw,user_id=0"),
    )


def test_table_is_findmnts(playground: Path) -> None:
    plain = tmpfs(playground / "plain")
    (plain / "sub").mkdir()
    bind = playground / "bind"
    bind.mkdir()
    run("mount", "--bind", plain / "sub", bind)
    columns = "ID,PARENT,MAJ:MIN,FSROOT,TARGET,FSTYPE,VFS-OPTIONS,FS-OPTIONS"
    listed = json.loads(run("findmnt", "--kernel", "--list", "--json", "--output", columns))
    expected = [
        tuple(str(value) for value in row.values())
        for row in listed["filesystems"]
        if row["target"].startswith(f"{playground}/")
    ]
    seen = [
        (
            *(str(mount.mount_id), str(mount.parent_id), f"{mount.major}:{mount.minor}"),
            *(mount.root, mount.mount_point, mount.fstype, mount.options, mount.super_options),
        )
        for mount in below(playground)
    ]
    assert seen == expected
    assert len(seen) == 2


def test_odd_names_come_back(playground: Path) -> None:
    point = tmpfs(playground / ODD_NAME)
    (mount,) = below(playground)
    assert mount.mount_point == str(point)
    assert mount.dev == (os.major(point.stat().st_dev), os.minor(point.stat().st_dev))
    assert mount_of(str(point)) == mount


def test_mount_of_follows_the_path_as_the_kernel_does(playground: Path) -> None:
    lower = tmpfs(playground / "point")
    (lower / "file").touch()
    (first,) = below(playground)
    assert mount_of(str(lower / "file")) == first
    link = playground / "link"
    link.symlink_to(lower / "file")
    assert mount_of(str(link)) == first
    tmpfs(lower)
    covered, covering = below(playground)
    assert covered == first
    assert mount_of(str(lower)) == covering


def test_mount_of_missing_path() -> None:
    with pytest.raises(MarkError, match="/nonexistent: No such file or directory; "):
        mount_of("/nonexistent")


@pytest.mark.usefixtures("scratch_space")
def test_device_of_a_loop_mount() -> None:
    with scratch("ext4") as fs:
        mount = mount_of(str(fs.mount_point))
        assert mount.dev == fs.dev
        assert (mount.fstype, mount.source, mount.root) == ("ext4", fs.device, "/")
        assert mount in followed_mounts(read_mounts())


def preferred_point(device: Dev) -> str:
    return preferred_mounts(read_mounts())[device].mount_point


def test_preferred_mount_is_whole_and_visible(playground: Path) -> None:
    whole = tmpfs(playground / "b" / "whole")
    (whole / "sub").mkdir()
    device = mount_of(str(whole)).dev
    assert preferred_point(device) == str(whole)

    # A part of it, mounted elsewhere, is no match for the whole.
    part = playground / "part"
    part.mkdir()
    run("mount", "--bind", whole / "sub", part)
    assert preferred_point(device) == str(whole)

    # Covered at its own mount point: only the part is still visible.
    cover = tmpfs(whole)
    assert preferred_point(device) == str(part)
    run("umount", cover)
    assert preferred_point(device) == str(whole)

    # Covered further up.
    above = tmpfs(playground / "b")
    assert not whole.exists()
    assert preferred_point(device) == str(part)

    # A second whole mount beats the part, although it is the youngest.
    again = playground / "again"
    again.mkdir()
    run("umount", above)
    run("mount", "--bind", whole, again)
    tmpfs(playground / "b")
    assert preferred_point(device) == str(again)

    # With nothing visible left, any mount of the device is still an answer.
    run("umount", again)
    run("umount", part)
    assert preferred_point(device) == str(whole)


def test_watch_wakes_up_and_shows_the_change(playground: Path) -> None:
    with MountWatch() as watch, select.epoll() as poller:
        poller.register(watch.fileno(), select.EPOLLPRI | select.EPOLLERR)
        assert watch.changed() == read_mounts()
        point = tmpfs(playground / "new")
        ((descriptor, events),) = poller.poll(10)
        assert descriptor == watch.fileno()
        assert events & (select.EPOLLPRI | select.EPOLLERR)
        assert str(point) in [mount.mount_point for mount in watch.changed()]
        run("umount", point)
        assert poller.poll(10) != []
        assert str(point) not in [mount.mount_point for mount in watch.changed()]
