"""Marks on parts of a file system where the probe did not see the place, and other views.

Overlays, containers, subvolumes, mounts that go; the process that is asked, and when it hangs.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.group.statistics import DropReason
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark, MarkKind, SuperblockErrors
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import BY_NAME, DEADLINE_SECONDS, child_running, require_seen
from tests.live.hearing import Ears, Options, deep, fail_writes, ino, two_victims

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
BAD_EXTENT = BY_NAME["ext4_bad_extent"]
TRIGGER = BY_NAME["ext4_trigger"]


@pytest.fixture(scope="module")
def placed(file_systems: None) -> Iterator[AttachedProbes]:
    with AttachedProbes([Stream.PROPOSED], places=True) as attached:
        yield attached


def seek(path: Path) -> None:
    """Make a process look for data in a file whose extent tree is broken."""
    run_child("xfs_io", "-r", "-c", "seek -d 0", str(path), path=str(path))


@contextmanager
def bad_extent(*folders: str) -> Iterator[tuple[Scratch, list[Path]]]:
    """An ext4 with such a file in each of the folders: the same one, by as many names."""
    with scratch("ext4", mkfs_options=BAD_EXTENT.mkfs_options) as fs:
        BAD_EXTENT.prepare(fs)
        for folder in folders:
            (fs.mount_point / folder).mkdir()
        first, *others = (fs.mount_point / folder / "victim" for folder in folders)
        (fs.mount_point / "victim").rename(first)
        for other in others:
            other.hardlink_to(first)
        run("sync", "-f", str(fs.mount_point))
        yield fs, [first, *others]


# where the probe had no inode: without kprobes all of ext4


def test_ext4_metadata(placed: AttachedProbes) -> None:
    with bad_extent("inside") as (fs, (victim,)):
        (fs.mount_point / "outside").mkdir()
        with Ears(
            placed,
            [fs.mount_point],
            subtree=Mark.subtree(str(victim.parent)),
            outside=Mark.subtree(f"{fs.mount_point}/outside"),
            inode=Mark.inode(str(victim)),
        ) as ears:
            here = ino(victim)
            seek(victim)
            heard = ears.after(here)
            unknown = ears.statistics("outside").dropped[DropReason.PLACE_UNKNOWN]
            fs.unmount()  # nothing keeps it busy, also not the process that was asked
            fs.mount()
    assert heard == {"all": {here}, "subtree": {here}, "outside": set(), "inode": {here}}
    assert unknown == 0


def test_ext4_metadata_of_a_deleted_file(placed: AttachedProbes) -> None:
    with bad_extent("inside") as (fs, (victim,)):
        (fs.mount_point / "outside").mkdir()
        marks = {
            "subtree": Mark.subtree(str(victim.parent)),
            "outside": Mark.subtree(f"{fs.mount_point}/outside"),
        }
        with Ears(placed, [fs.mount_point], **marks) as ears, victim.open() as file:
            here = ino(victim)
            victim.unlink()
            seek(Path(f"/proc/{os.getpid()}/fd/{file.fileno()}"))
            heard = ears.after(here)
    assert heard == {"all": {here}, "subtree": {here}, "outside": set()}


def test_ext4_metadata_of_a_hard_linked_file(placed: AttachedProbes) -> None:
    """The names that the process finds are one; without kprobes the other may be anywhere."""
    with bad_extent("inside", "outside") as (fs, (victim, link)):
        marks = {"subtree": Mark.subtree(str(victim.parent))}
        with Ears(placed, [fs.mount_point], **marks) as ears:
            here = ino(victim)
            assert ino(link) == here
            seek(link)
            heard = ears.after(here)
            statistics = ears.statistics("subtree")
    if placed.kernel.kprobes:
        assert heard == {"all": {here}, "subtree": {here}}
    else:
        assert heard["subtree"] <= {here}
        assert bool(heard["subtree"]) != bool(statistics.dropped[DropReason.PLACE_UNKNOWN])


def test_an_inode_that_is_bad_itself_is_not_touched(placed: AttachedProbes) -> None:
    fault = BY_NAME["xfs_inode"]
    require_seen(fault, placed)
    with scratch("xfs") as fs:
        fault.prepare(fs)
        (fs.mount_point / "folder").mkdir()
        marks = {"subtree": Mark.subtree(f"{fs.mount_point}/folder")}
        with Ears(placed, [fs.mount_point], **marks) as ears:
            fault.cause(fs)
            ears.until(lambda: bool(ears.heard["all"]), "the error")
            first = list(ears.heard["all"])
            heard = ears.after()
            unknown = ears.statistics("subtree").dropped[DropReason.PLACE_UNKNOWN]
            inodes = {number for number in heard["all"] if number}
    assert heard["subtree"] == set()
    assert unknown == len([number for number in first if number]) > 0
    assert ears.heard["all"] == first, "nobody looked at it again"
    assert len(inodes) == 1


# what is not decided yet


def asked_process() -> int:
    """The one process that is asked for places."""
    return child_running(os.getpid(), "fserr_bpf.helper.worker")


@contextmanager
def undecided(placed: AttachedProbes) -> Iterator[tuple[Scratch, Ears, Path, Path]]:
    """Two files in a marked directory, the first too deep for the record."""
    with two_victims("xfs") as (fs, inside, outside):
        low = inside.rename(deep(inside.parent, 30) / "victim")
        high = outside.rename(inside)
        run("sync", "-f", str(fs.mount_point))
        with Ears(placed, [fs.mount_point], subtree=Mark.subtree(str(high.parent))) as ears:
            yield fs, ears, low, high


def heard_by_all(ears: Ears, *inodes: int) -> None:
    ears.until(lambda: set(inodes) <= set(ears.heard["all"]), "the errors")


def test_order_is_kept_and_nobody_else_waits(placed: AttachedProbes) -> None:
    with undecided(placed) as (fs, ears, low, high):
        fail_writes(fs, low, high)
        os.kill(asked_process(), signal.SIGSTOP)
        heard_by_all(ears, ino(low), ino(high))
        before = list(ears.heard["subtree"])
        waiting = ears.statistics("subtree").waiting
        os.kill(asked_process(), signal.SIGCONT)
        ears.after(ino(low), ino(high))
        order = list(dict.fromkeys(ears.heard["subtree"]))
        expected = [ino(low), ino(high)]
    assert before == []
    assert waiting > 1
    assert order == expected


def test_a_process_that_hangs_holds_up_one_second_once(placed: AttachedProbes) -> None:
    with undecided(placed) as (fs, ears, low, high):
        os.kill(asked_process(), signal.SIGSTOP)
        fail_writes(fs, low, high)
        heard = ears.after(ino(low), ino(high))  # nothing waits any more
        first = ears.statistics("subtree").dropped[DropReason.PLACE_UNKNOWN]
        ears.heard["all"].clear()
        fail_writes(fs, low)
        heard_by_all(ears, ino(low))
        at_once = ears.statistics("subtree")
        os.kill(asked_process(), signal.SIGCONT)
        places = ears.places["subtree"]
        assert places is not None
        ears.until(lambda: not places.overdue, "the late answer")
        fail_writes(fs, low)
        later = ears.after(ino(low))
        assert heard == {"all": {ino(low), ino(high)}, "subtree": {ino(high)}}
        assert later["subtree"] == {ino(low), ino(high)}
    assert first > 0
    assert at_once.waiting == 0
    assert at_once.dropped[DropReason.PLACE_UNKNOWN] > first


def test_the_descriptor_alone_tells_when_to_go_on(placed: AttachedProbes) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        low = inside.rename(deep(inside.parent, 30) / "victim")
        high = outside.rename(inside)
        run("sync", "-f", str(fs.mount_point))
        mark = Mark.subtree(str(high.parent))
        with Monitor([mark], attached=placed) as monitor, select.epoll() as poller:
            os.kill(asked_process(), signal.SIGSTOP)
            poller.register(monitor.fileno(), select.EPOLLIN)
            fail_writes(fs, low, high)
            while not len(monitor):
                assert poller.poll(DEADLINE_SECONDS), "nothing told of the deadline"
                monitor.pump()
            event = monitor.pop()
            statistics = monitor.statistics()
        assert isinstance(event, FsErrorEvent)
        assert event.origin is not None
        assert event.origin.ino == ino(high)
    assert statistics.dropped[DropReason.PLACE_UNKNOWN] > 0


def test_a_process_that_dies_is_reported(placed: AttachedProbes) -> None:
    with undecided(placed) as (fs, ears, low, high):
        os.kill(asked_process(), signal.SIGKILL)
        fail_writes(fs, low, high)
        heard = ears.after(ino(low), ino(high))
        news = ears.groups["subtree"].news
        assert heard == {"all": {ino(low), ino(high)}, "subtree": {ino(high)}}
    assert len(news) == 2
    assert (
        "the helper process has ended: errors without a location from the probe are dropped" in news
    )


# who hears what


@pytest.mark.parametrize("policy", list(SuperblockErrors))
def test_errors_of_the_superblock(policy: SuperblockErrors, placed: AttachedProbes) -> None:
    with scratch("ext4") as fs:
        folder = fs.mount_point / "folder"
        folder.mkdir()
        (folder / "file").touch()
        with Ears(
            placed,
            [fs.mount_point],
            Options(superblock=policy),
            subtree=Mark.subtree(str(folder)),
            mount=Mark.mount(str(folder)),
            inode=Mark.inode(str(folder / "file")),
        ) as ears:
            TRIGGER.cause(fs)
            heard = ears.after(0)
    expected = {0} if policy is SuperblockErrors.ALL else set()
    assert heard == {"all": {0}, "subtree": expected, "mount": expected, "inode": expected}


def test_ignore_marks_win(placed: AttachedProbes) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        top = Mark.filesystem(str(fs.mount_point))
        with Ears(
            placed,
            [fs.mount_point],
            Options(ignore=[Mark.subtree(str(inside.parent))]),
            whole=top,
            same=Mark.subtree(str(inside.parent)),
            mount=Mark.mount(str(inside)),
        ) as ears:
            here, there = ino(inside), ino(outside)
            fail_writes(fs, inside, outside)
            heard = ears.after(here, there)
            ignored = {
                name: ears.statistics(name).dropped[DropReason.IGNORED] for name in ears.groups
            }
    assert heard == {"all": {here, there}, "whole": {there}, "same": set(), "mount": {there}}
    assert ignored["all"] == 0
    assert ignored["whole"] == ignored["same"] == ignored["mount"] > 0


@pytest.mark.parametrize("kind", [MarkKind.FILESYSTEM, MarkKind.MOUNT, MarkKind.INODE])
def test_other_ignore_marks(kind: MarkKind, placed: AttachedProbes) -> None:
    with two_victims("ext4") as (fs, inside, outside):
        marks = {"whole": Mark.filesystem(str(fs.mount_point))}
        options = Options(ignore=[Mark(str(inside), kind)])
        with Ears(placed, [fs.mount_point], options, **marks) as ears:
            here, there = ino(inside), ino(outside)
            fail_writes(fs, inside, outside)
            TRIGGER.cause(fs)
            heard = ears.after(here, there, 0)
    left = {
        MarkKind.FILESYSTEM: set(),
        MarkKind.MOUNT: {0},
        MarkKind.INODE: {there, 0},
    }
    assert heard == {"all": {here, there, 0}, "whole": left[kind]}


def test_an_ignore_mark_ignores_only_what_is_surely_its_own(placed: AttachedProbes) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        (outside.parent / "link of inside").hardlink_to(inside)
        fs.remount_fresh()
        marks = {"whole": Mark.filesystem(str(fs.mount_point))}
        options = Options(ignore=[Mark.subtree(str(inside.parent))])
        with Ears(placed, [fs.mount_point], options, **marks) as ears:
            here = ino(outside.parent / "link of inside")
            fail_writes(fs, outside.parent / "link of inside")
            heard = ears.after(here)
    assert heard == {"all": {here}, "whole": {here}}
