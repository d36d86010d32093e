"""Findings about file systems that nobody can mount for a test."""

from __future__ import annotations

import pytest

from fserr_bpf.doctor.filesystems import look_at_filesystems
from fserr_bpf.doctor.finding import Level
from fserr_bpf.kernel.mounts import parse_mountinfo
from fserr_bpf.model.state import Condition, FilesystemState
from fserr_bpf.state.superblocks import Superblock
from fserr_bpf.uapi.dev import Dev

(MOUNT,) = parse_mountinfo(b"1 2 8:1 / /srv rw - xfs /dev/sda1 rw\n")
HIDDEN = Superblock(MOUNT.dev, (MOUNT,), None, MOUNT.dev)
STATE = FilesystemState(
    dev=Dev(8, 1),
    device="sda1",
    mapper="",
    below=("sda",),
    fstype="xfs",
    mount_points=("/srv",),
    hidden=True,
    condition=Condition.OK,
)


@pytest.mark.parametrize(
    ("state", "level", "remedy"),
    [
        (STATE, Level.OK, ""),
        (STATE._replace(condition=Condition.READ_ONLY), Level.OK, ""),
        (STATE._replace(condition=Condition.UNKNOWN), Level.NOTE, ""),
        (STATE._replace(condition=Condition.UNKNOWN, hidden=False), Level.PROBLEM, "look at its"),
        (STATE._replace(condition=Condition.GONE), Level.PROBLEM, "unmount it, and replace"),
        (STATE._replace(condition=Condition.SHUTDOWN), Level.PROBLEM, "unmount it, mount and"),
        (
            STATE._replace(condition=Condition.SHUTDOWN, fstype="vfat"),
            Level.PROBLEM,
            "unmount it and check /dev/sda1",
        ),
    ],
)
def test_level_and_remedy_of_a_state(state: FilesystemState, level: Level, remedy: str) -> None:
    first, hidden = look_at_filesystems([HIDDEN], [state])
    assert (first.level, first.subject) == (level, "/srv")
    assert first.finding == f"{state.fstype} on sda1 on sda: {state.condition}"
    assert first.remedy.startswith(remedy)
    assert bool(first.remedy) == bool(remedy)
    assert (hidden.level, hidden.remedy) == (Level.NOTE, "mount it at a second place too")
