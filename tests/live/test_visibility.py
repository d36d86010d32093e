"""Marks on parts of a file system: exact sets of errors, and what they do not hear.

The table in docs/marks.md names each of these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compare.scratch import run
from fserr_bpf.live.armed import Armed
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from tests.live.hearing import Ears, deep, fail_writes, ino, require_subvolumes, two_victims

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


@pytest.fixture(scope="module")
def placed(file_systems: None) -> Iterator[Armed]:
    with Armed([Stream.PROPOSED], places=True) as armed:
        yield armed


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_each_kind_hears_its_part(fstype: str, placed: Armed) -> None:
    require_subvolumes(fstype, placed)
    with (
        two_victims(fstype) as (fs, inside, outside),
        Ears(
            placed,
            [fs.mount_point],
            subtree=Mark.subtree(str(inside.parent)),
            file=Mark.subtree(str(outside)),
            inode=Mark.inode(str(inside)),
            folder=Mark.inode(str(inside.parent)),
            mount=Mark.mount(str(inside)),
        ) as ears,
    ):
        fail_writes(fs, inside, outside)
        here, there = ino(inside), ino(outside)
        heard = ears.after(here, there)
        unheard = ears.statistics("subtree").not_marked
    assert heard == {
        "all": {here, there},
        "subtree": {here},
        "file": {there},
        "inode": {here},
        "folder": set(),
        "mount": {here, there},
    }
    assert unheard > 0


def test_where_a_file_is_at_that_moment_counts(placed: Armed) -> None:
    with (
        two_victims("xfs") as (fs, inside, outside),
        Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears,
    ):
        here, there = ino(inside), ino(outside)
        moved = inside.rename(outside.parent / "moved out")
        came = outside.rename(inside.parent / "moved in")
        fail_writes(fs, moved, came)
        # after the errors, before they are judged
        moved.rename(inside)
        came.rename(outside)
        heard = ears.after(here, there)
    assert heard == {"all": {here, there}, "subtree": {there}}


def test_a_marked_directory_is_followed_to_its_new_name(placed: Armed) -> None:
    with (
        two_victims("xfs") as (fs, inside, outside),
        Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears,
    ):
        here, there = ino(inside), ino(outside)
        folder = inside.parent.rename(outside.parent / "renamed")
        (fs.mount_point / "inside").mkdir()  # another directory of the old name
        other = outside.rename(fs.mount_point / "inside" / "victim")
        fail_writes(fs, folder / "victim", other)
        heard = ears.after(here, there)
    assert heard == {"all": {here, there}, "subtree": {here}}


def test_any_name_of_a_hard_linked_file_may_be_inside(placed: Armed) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        linked = outside.parent / "link of inside"
        linked.hardlink_to(inside)
        second = outside.parent / "second name"
        second.hardlink_to(outside)
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            here, there = ino(inside), ino(outside)
            fail_writes(fs, linked, names=[inside])
            fail_writes(fs, outside, names=[second])
            heard = ears.after(here, there)
            unknown = ears.statistics("subtree").place_unknown
    assert heard == {"all": {here, there}, "subtree": {here}}
    assert unknown == 0


def test_a_name_that_the_kernel_has_forgotten_may_be_anywhere(placed: Armed) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        (outside.parent / "link of inside").hardlink_to(inside)
        fs.remount_fresh()
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            here = ino(outside.parent / "link of inside")
            fail_writes(fs, outside.parent / "link of inside")
            heard = ears.after(here)
            statistics = ears.statistics("subtree")
            news = ears.groups["subtree"].news
    assert heard == {"all": {here}, "subtree": set()}
    assert statistics.place_unknown == statistics.seen > 0
    assert news == [
        f"an error on {fs.device_name} is not delivered: it is not known where it happened; "
        "more of them are counted only"
    ]


def test_a_removed_name_does_not_count_while_there_is_another(placed: Armed) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        linked = outside.parent / "link of inside"
        linked.hardlink_to(inside)
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            here = ino(linked)
            fail_writes(fs, inside, how="unlinked", names=[linked])
            heard = ears.after(here)
    assert heard == {"all": {here}, "subtree": set()}


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_a_deleted_file_is_where_it_was_deleted(fstype: str, placed: Armed) -> None:
    require_subvolumes(fstype, placed)
    with (
        two_victims(fstype) as (fs, inside, outside),
        Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears,
    ):
        here, there = ino(inside), ino(outside)
        fail_writes(fs, inside, outside, how="unlinked")
        heard = ears.after(here, there)
    assert heard == {"all": {here, there}, "subtree": {here}}


def test_a_bind_mount_of_a_directory_hears_nothing_of_what_is_outside(
    placed: Armed, scratch_space: Path
) -> None:
    bound = scratch_space / "bound"
    bound.mkdir()
    with two_victims("xfs") as (fs, inside, outside):
        run("mount", "--bind", str(inside.parent), str(bound))
        try:
            with Ears(
                placed,
                [fs.mount_point],
                mount=Mark.mount(str(bound)),
                whole=Mark.mount(str(inside)),
            ) as ears:
                here, there = ino(inside), ino(outside)
                # through either mount: what counts is what can be reached
                fail_writes(fs, bound / "victim", outside)
                heard = ears.after(here, there)
        finally:
            run("umount", str(bound))
    assert heard == {"all": {here, there}, "mount": {here}, "whole": {here, there}}


def test_file_systems_mounted_below_are_not_part_of_a_subtree(placed: Armed) -> None:
    with two_victims("ext4") as (fs, inside, _), two_victims("xfs") as (lower, _, within):
        point = inside.parent / "point"
        point.mkdir()
        run("mount", "--bind", str(lower.mount_point), str(point))
        try:
            tops = [fs.mount_point, lower.mount_point]
            with Ears(placed, tops, subtree=Mark.subtree(str(inside.parent))) as ears:
                here, there = ino(inside), ino(within)
                fail_writes(fs, inside)
                fail_writes(lower, point / "outside" / "victim")
                heard = ears.after(here, there)
        finally:
            run("umount", str(point))
    assert heard == {"all": {here, there}, "subtree": {here}}


@pytest.mark.parametrize("levels", [21, 22, 23, 60])
def test_a_deep_tree(levels: int, placed: Armed) -> None:
    """24 folders are in the record, the root of the file system among them."""
    with two_victims("xfs") as (fs, inside, outside):
        lower = inside.rename(deep(inside.parent, levels) / "victim")
        other = outside.rename(deep(outside.parent, levels) / "victim")
        run("sync", "-f", str(fs.mount_point))
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            fail_writes(fs, lower, other)
            # looked up again: a device that changes makes 5.10 forget the names
            here, there = ino(lower), ino(other)
            heard = ears.after(here, there)
            unknown = ears.statistics("subtree").place_unknown
    assert heard == {"all": {here, there}, "subtree": {here}}
    assert unknown == 0
