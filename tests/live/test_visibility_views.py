"""Marks through other views of a file system: overlays, containers, subvolumes, mounts that go."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.errors import MarkError
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.marks.overlayfs import Layers, objects_in
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.mark import Mark, MarkKind
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.cutting import MKFS_OPTIONS, MOUNT_OPTIONS, PAYLOAD
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import wait_until
from tests.live.hearing import Ears, container, fail_writes, ino, require_subvolumes, two_victims

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


@pytest.fixture(scope="module")
def placed(file_systems: None) -> Iterator[AttachedProbes]:
    with AttachedProbes([Stream.PROPOSED], places=True) as attached:
        yield attached


@contextmanager
def overlay(upper: Scratch, lower: Scratch, at: Path) -> Iterator[Path]:
    """``inside`` and ``outside`` of ``upper`` over those of ``lower``; yields the upper layer."""
    top, work = upper.mount_point / "upper", upper.mount_point / "work"
    for folder in (top, work, at):
        folder.mkdir()
    for name in ("inside", "outside"):
        (upper.mount_point / name).rename(top / name)
    (lower.mount_point / "inside" / "victim").rename(lower.mount_point / "inside" / "lower")
    run("sync", "-f", str(upper.mount_point))
    options = f"lowerdir={lower.mount_point},upperdir={top},workdir={work}"
    run("mount", "-t", "overlay", "-o", options, "overlay", str(at))
    try:
        yield top
    finally:
        run("umount", str(at))


@pytest.mark.parametrize("kind", [MarkKind.SUBTREE, MarkKind.MOUNT, MarkKind.INODE])
def test_a_path_on_an_overlay_means_its_layers(
    kind: MarkKind, placed: AttachedProbes, scratch_space: Path
) -> None:
    merged = scratch_space / "merged"
    with (
        two_victims("xfs") as (upper, _, _),
        two_victims("ext4") as (lower, _, below_outside),
        overlay(upper, lower, merged) as top,
    ):
        path = merged / "inside" / ("victim" if kind is MarkKind.INODE else "")
        tops = [upper.mount_point, lower.mount_point]
        with Ears(placed, tops, marked=Mark(str(path), kind)) as ears:
            fail_writes(upper, top / "inside" / "victim", through=merged / "inside")
            fail_writes(upper, top / "outside" / "victim", through=merged / "outside")
            below = lower.mount_point / "inside" / "lower"
            fail_writes(lower, below)
            fail_writes(lower, below_outside)
            here, there = ino(top / "inside" / "victim"), ino(top / "outside" / "victim")
            low, low_outside = ino(below), ino(below_outside)
            heard = ears.files_after(here, there, low, low_outside)
            devices = {marked.device for marked in ears.groups["marked"].marks}
            names = upper.device_name, lower.device_name
    assert len({here, there} & {low, low_outside}) == 0, "numbers would not tell them apart"
    expected = {
        MarkKind.SUBTREE: {here, low},
        MarkKind.MOUNT: {here, there, low, low_outside},
        MarkKind.INODE: {here},
    }
    assert heard == {"all": {here, there, low, low_outside}, "marked": expected[kind]}
    assert devices == ({names[0]} if kind is MarkKind.INODE else set(names))


def test_what_only_a_lower_layer_has_is_said(placed: AttachedProbes, scratch_space: Path) -> None:
    merged = scratch_space / "merged"
    with two_victims("xfs") as (upper, _, _), two_victims("ext4") as (lower, _, _):
        (lower.mount_point / "only").mkdir()
        with overlay(upper, lower, merged):
            path = str(merged / "only")
            with Monitor([Mark.subtree(path)], attached=placed) as monitor:
                devices = {marked.device for marked in monitor.marks}
                news = monitor.news()
        expected = {lower.device_name}
    assert devices == expected
    assert news == [f"{path}: what is copied up later is not heard; mark again then"]


def test_whiteouts_opaque_and_renamed_directories() -> None:
    with scratch("ext4") as fs:
        upper, lower = fs.mount_point / "upper", fs.mount_point / "lower"
        for path in (upper / "opaque", upper / "moved" / "in", lower / "opaque"):
            path.mkdir(parents=True)
        (lower / "old" / "in").mkdir(parents=True)
        (lower / "gone").mkdir()
        os.mknod(upper / "gone", stat.S_IFCHR, os.makedev(0, 0))
        os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
        os.setxattr(upper / "moved", "trusted.overlay.redirect", b"old")
        layers = Layers(str(upper), (str(lower),))
        assert objects_in(layers, "opaque", "/m") == [f"{upper}/opaque"]
        assert objects_in(layers, "moved/in", "/m") == [f"{upper}/moved/in", f"{lower}/old/in"]
        with pytest.raises(MarkError, match="/m: not found in the overlay's layers"):
            objects_in(layers, "gone", "/m")


# containers


def leave(process: int, point: Path) -> None:
    """Unmount it in the mount namespace of ``process``, below its root."""
    run("nsenter", "--mount", "--root", f"--target={process}", "umount", str(point))


def test_a_mount_that_only_a_container_has(placed: AttachedProbes, scratch_space: Path) -> None:
    bound = scratch_space / "bound"
    bound.mkdir()
    with (
        two_victims("xfs") as (fs, inside, outside),
        container("mount", "--bind", str(inside.parent), str(bound)) as pid,
    ):
        path = f"/proc/{pid}/root{bound}"
        assert not (bound / "victim").exists()
        marks = {"mount": Mark.mount(path), "subtree": Mark.subtree(path)}
        with Ears(placed, [fs.mount_point], **marks) as ears:
            here, there = ino(inside), ino(outside)
            fail_writes(fs, inside, outside)
            heard = ears.files_after(here, there)
            assert ears.groups["mount"].news == []
            leave(pid, bound)
            for who in ears.heard.values():
                who.clear()
            fail_writes(fs, inside)
            after = ears.files_after(here)
            news = ears.groups["mount"].news
    assert heard == {"all": {here, there}, "mount": {here}, "subtree": {here}}
    assert after == {"all": {here}, "mount": set(), "subtree": {here}}
    assert news == [f"no longer watching the mount of {path}: unmounted"]


def test_a_file_system_that_only_a_container_has(
    placed: AttachedProbes, scratch_space: Path
) -> None:
    with two_victims("ext4") as (fs, _, _):
        fs.unmount()
        point = str(fs.mount_point)
        with container("mount", fs.device, point) as pid:
            top = Path(f"/proc/{pid}/root{point}")
            assert point not in {mount.mount_point for mount in read_mounts()}
            inside, outside = top / "inside" / "victim", top / "outside" / "victim"
            with Ears(placed, [top], subtree=Mark.subtree(str(inside.parent))) as ears:
                (marked,) = ears.groups["all"].marks
                here, there = ino(inside), ino(outside)
                fail_writes(fs, inside, outside)
                heard = ears.files_after(here, there)
        fs.mount()
    assert marked.mount_point == str(top)
    assert heard == {"all": {here, there}, "subtree": {here}}


def test_it_is_watched_until_that_container_ends(
    placed: AttachedProbes, scratch_space: Path
) -> None:
    """Where no probe tells of the end, changes of our own mount table say nothing about it."""
    other = scratch_space / "other"
    other.mkdir()

    def change(monitor: Monitor) -> list[str]:
        run("mount", "-t", "tmpfs", "none", str(other))
        run("umount", str(other))
        monitor.pump()
        return monitor.news()

    with scratch("ext4") as fs:
        fs.unmount()
        with container("mount", fs.device, str(fs.mount_point)) as pid:
            top = f"/proc/{pid}/root{fs.mount_point}"
            with Monitor([Mark.subtree(top)], attached=placed) as monitor:
                before = change(monitor), len(monitor.marks)
                leave(pid, fs.mount_point)
                after = change(monitor), len(monitor.marks)
        fs.mount()
    assert before == ([], 1)
    assert after == ([f"no longer watching {top}: unmounted"], 0)


# subvolumes


def test_subvolumes_are_below_where_they_are(placed: AttachedProbes, scratch_space: Path) -> None:
    require_subvolumes("btrfs", placed)
    point = scratch_space / "subvolume"
    point.mkdir()
    with scratch(
        "btrfs", mkfs_options=MKFS_OPTIONS["btrfs"], mount_options=MOUNT_OPTIONS["btrfs"]
    ) as fs:
        nested, snapshot = fs.mount_point / "inside" / "nested", fs.mount_point / "snapshot"
        nested.parent.mkdir()
        run("btrfs", "subvolume", "create", str(nested))
        (nested / "folder").mkdir()
        (nested / "folder" / "victim").write_bytes(b"x" * PAYLOAD)
        run("btrfs", "subvolume", "snapshot", str(nested), str(snapshot))
        victims = [top / "folder" / "victim" for top in (nested, snapshot)]
        run("mount", "-o", "subvol=/inside/nested", fs.device, str(point))
        try:
            for victim in victims:
                victim.write_bytes(b"y" * PAYLOAD)  # the two share nothing any more
            run("sync", "-f", str(fs.mount_point))
            assert ino(victims[0]) == ino(victims[1])
            heard = []
            for victim in victims:
                with Ears(
                    placed,
                    [fs.mount_point],
                    inside=Mark.subtree(str(nested.parent)),
                    nested=Mark.subtree(str(nested)),
                    folder=Mark.subtree(str(nested / "folder")),
                    mount=Mark.mount(str(point)),
                    copy=Mark.subtree(str(snapshot / "folder")),
                ) as ears:
                    fail_writes(fs, victim)
                    heard.append({name for name, who in ears.after(ino(victim)).items() if who})
        finally:
            run("umount", str(point))
    assert heard == [{"all", "inside", "nested", "folder", "mount"}, {"all", "copy"}]


def test_events_have_the_fsid_of_the_file_system_mark(placed: AttachedProbes) -> None:
    with scratch("btrfs") as fs:
        nested = fs.mount_point / "nested"
        run("btrfs", "subvolume", "create", str(nested))
        top, part = Mark.filesystem(str(fs.mount_point)), Mark.subtree(str(nested))
        ids = [MarkTable(marks) for marks in ([top], [part, top], [top, part], [part])]
        found = [{marked.fsid for marked in table} for table in ids]
    assert found[0] == found[1] == found[2] != found[3]


# mounts that go


def test_a_mount_mark_ends_with_its_mount(placed: AttachedProbes, scratch_space: Path) -> None:
    bound = scratch_space / "bound"
    bound.mkdir()
    news: list[str] = []
    with two_victims("xfs") as (fs, inside, _):
        run("mount", "--bind", str(inside.parent), str(bound))
        with Monitor([Mark.mount(str(bound))], attached=placed) as monitor:
            run("umount", str(bound))

            def told() -> bool:
                monitor.wait(0.1)
                monitor.pump()
                news.extend(monitor.news())
                return bool(news)

            wait_until(told, "the end of the mark")
            assert list(monitor.marks) == []
            fail_writes(fs, inside)
            monitor.pump()
            assert len(monitor) == 0
    assert news == [f"no longer watching the mount of {bound}: unmounted"]


def test_a_hidden_mount_cannot_be_marked(placed: AttachedProbes, scratch_space: Path) -> None:
    with scratch("xfs") as fs:
        folder = fs.mount_point / "folder"
        folder.mkdir()
        with folder.joinpath("file").open("w") as file:
            run("mount", "-t", "tmpfs", "none", str(fs.mount_point))
            try:
                path = f"/proc/self/fd/{file.fileno()}"
                with pytest.raises(MarkError, match="another mount hides"):
                    Monitor([Mark.mount(path)], attached=placed)
            finally:
                run("umount", str(fs.mount_point))
