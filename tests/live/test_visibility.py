"""Marks on parts of a file system: exact sets of errors, and what they do not hear.

The table in docs/marks.md names each of these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.group.statistics import DropReason
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.scratch import run
from tests.live.hearing import Ears, deep, fail_writes, ino, require_subvolumes, two_victims

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


@pytest.fixture(scope="module")
def placed(file_systems: None) -> Iterator[AttachedProbes]:
    with AttachedProbes([Stream.PROPOSED], places=True) as attached:
        yield attached


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_each_kind_hears_its_part(fstype: str, placed: AttachedProbes) -> None:
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
        heard = ears.files_after(here, there)
        unheard = ears.statistics("subtree").dropped[DropReason.NOT_MARKED]
    assert heard == {
        "all": {here, there},
        "subtree": {here},
        "file": {there},
        "inode": {here},
        "folder": set(),
        "mount": {here, there},
    }
    assert unheard > 0


def test_where_a_file_is_at_that_moment_counts(placed: AttachedProbes) -> None:
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
        heard = ears.files_after(here, there)
    assert heard == {"all": {here, there}, "subtree": {there}}


def test_a_marked_directory_is_followed_to_its_new_name(placed: AttachedProbes) -> None:
    with (
        two_victims("xfs") as (fs, inside, outside),
        Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears,
    ):
        here, there = ino(inside), ino(outside)
        folder = inside.parent.rename(outside.parent / "renamed")
        (fs.mount_point / "inside").mkdir()  # another directory of the old name
        other = outside.rename(fs.mount_point / "inside" / "victim")
        fail_writes(fs, folder / "victim", other)
        heard = ears.files_after(here, there)
    assert heard == {"all": {here, there}, "subtree": {here}}


def test_any_name_of_a_hard_linked_file_may_be_inside(placed: AttachedProbes) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        linked = outside.parent / "link of inside"
        linked.hardlink_to(inside)
        second = outside.parent / "second name"
        second.hardlink_to(outside)
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            here, there = ino(inside), ino(outside)
            fail_writes(fs, linked, names=[inside])
            fail_writes(fs, outside, names=[second])
            heard = ears.files_after(here, there)
            unknown = ears.statistics("subtree").dropped[DropReason.PLACE_UNKNOWN]
    assert heard == {"all": {here, there}, "subtree": {here}}
    assert unknown == 0


def test_a_name_that_the_kernel_has_forgotten_may_be_anywhere(placed: AttachedProbes) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        (outside.parent / "link of inside").hardlink_to(inside)
        fs.remount_fresh()
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            here = ino(outside.parent / "link of inside")
            fail_writes(fs, outside.parent / "link of inside")
            heard = ears.files_after(here)
            statistics = ears.statistics("subtree")
            news = ears.groups["subtree"].news
    assert heard == {"all": {here}, "subtree": set()}
    assert statistics.dropped[DropReason.PLACE_UNKNOWN] == statistics.seen > 0
    assert news == [
        f"{fs.device_name}: dropped an error whose location is unknown; "
        "further ones are only counted"
    ]


def test_a_removed_name_does_not_count_while_there_is_another(placed: AttachedProbes) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        linked = outside.parent / "link of inside"
        linked.hardlink_to(inside)
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            here = ino(linked)
            fail_writes(fs, inside, how="unlinked", names=[linked])
            heard = ears.files_after(here)
    assert heard == {"all": {here}, "subtree": set()}


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_a_deleted_file_is_where_it_was_deleted(fstype: str, placed: AttachedProbes) -> None:
    require_subvolumes(fstype, placed)
    with (
        two_victims(fstype) as (fs, inside, outside),
        Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears,
    ):
        here, there = ino(inside), ino(outside)
        fail_writes(fs, inside, outside, how="unlinked")
        heard = ears.files_after(here, there)
    assert heard == {"all": {here, there}, "subtree": {here}}


def test_a_bind_mount_of_a_directory_hears_nothing_of_what_is_outside(
    placed: AttachedProbes, scratch_space: Path
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
                heard = ears.files_after(here, there)
        finally:
            run("umount", str(bound))
    assert heard == {"all": {here, there}, "mount": {here}, "whole": {here, there}}


def test_file_systems_mounted_below_are_not_part_of_a_subtree(placed: AttachedProbes) -> None:
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
                heard = ears.files_after(here, there)
        finally:
            run("umount", str(point))
    assert heard == {"all": {here, there}, "subtree": {here}}


@pytest.mark.parametrize("levels", [21, 22, 23, 60])
def test_a_deep_tree(levels: int, placed: AttachedProbes) -> None:
    """24 folders are in the record, the root of the file system among them."""
    with two_victims("xfs") as (fs, inside, outside):
        lower = inside.rename(deep(inside.parent, levels) / "victim")
        other = outside.rename(deep(outside.parent, levels) / "victim")
        run("sync", "-f", str(fs.mount_point))
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(inside.parent))) as ears:
            fail_writes(fs, lower, other)
            # looked up again: a device that changes makes 5.10 forget the names
            here, there = ino(lower), ino(other)
            heard = ears.files_after(here, there)
            unknown = ears.statistics("subtree").dropped[DropReason.PLACE_UNKNOWN]
    assert heard == {"all": {here, there}, "subtree": {here}}
    assert unknown == 0
