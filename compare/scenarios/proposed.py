"""What only the proposal has: details of errors, places in the source, marks on inodes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import replace

from compare.faults import FAULTS
from compare.faults.cutting import (
    MKFS_OPTIONS,
    PAYLOAD,
    WRITEBACK_LOG,
    cut,
    last_victim,
    write_victims,
)
from compare.faults.fault import EFSBADCRC, EFSCORRUPTED, Expected, Fault, run_child
from compare.scenario import Need, Scenario, Stage, by_stream, fault_scenario
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION

_BY_NAME = {fault.name: fault for fault in FAULTS}
_DETAIL, _LOCATION = FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
_PATCHED = frozenset({Need.PATCHED})
_LISTING = _BY_NAME["ext4_htree_checksum"]
_TRIGGER = _BY_NAME["ext4_trigger"]
# With one of the two flags: who names a place, and who does not.
_EXAMPLES = ("ext4_trigger", "xfs_dirblock", "ext4_writeback")


def _told(fault: Fault, kind: str, flags: int) -> Scenario:
    """The scenario of ``fault`` in groups with ``flags``."""
    name = f"{kind}_{fault.name}"
    return replace(fault_scenario(fault, flags), name=name, area="proposed", needs=_PATCHED)


def _two_places(stage: Stage) -> None:
    """Two errors of one process from two places: they merge only where nobody asks."""
    fs = stage.scratch("ext4")
    _LISTING.damage(fs)
    stage.watch(fs, flags=_DETAIL)
    trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    listing = 'for name in "$0"/dir/*; do :; done'
    script = f'echo x > "$1"; {listing}; echo x > "$1"; echo x > "$1"'
    path = str(fs.mount_point)
    stage.caused(run_child("sh", "-c", script, path, trigger, path=path))


def _inode_marks(fstype: str, *, own: bool) -> Callable[[Stage], None]:
    """Writeback of one file fails; watched is that file, or its neighbour and its directory."""

    def play(stage: Stage) -> None:
        fs = stage.scratch(fstype, mkfs_options=MKFS_OPTIONS[fstype])
        write_victims(fs)
        path = last_victim(fs)
        other = str(fs.mount_point / "group0/victim")
        stage.watch(inodes=[path] if own else [other, str(fs.mount_point)])
        dd = ("dd", "if=/dev/zero", f"bs={PAYLOAD}", "count=1", "conv=notrunc,fsync")
        with cut(fs, path):
            stage.caused(run_child(*dd, f"of={path}", path=path))

    return play


def _both_marks(stage: Stage) -> None:
    """One event for an inode with a mark on a file system with one."""
    fs = stage.scratch("ext4")
    _LISTING.damage(fs)
    stage.watch(fs, inodes=[str(fs.mount_point / "dir")])
    stage.caused(_LISTING.cause(fs))
    stage.caused(_TRIGGER.cause(fs))


def _superblock_not_for_inodes(stage: Stage) -> None:
    fs = stage.scratch("ext4")
    stage.watch(inodes=[str(fs.mount_point)])
    stage.caused(_TRIGGER.cause(fs))


def _one(
    name: str,
    summary: str,
    play: Callable[[Stage], None],
    evidence: str,
    errors: Iterable[Expected] = (),
) -> Scenario:
    return Scenario(
        name=name,
        area="proposed",
        summary=summary,
        play=play,
        expected=by_stream(proposed=errors),
        evidence=evidence,
        needs=_PATCHED,
    )


_BAD_CRC = Expected(EFSBADCRC, "inode")
_SUPERBLOCK = Expected(EFSCORRUPTED, "sb")
_EIO = Expected(errno.EIO, "inode")

SCENARIOS: tuple[Scenario, ...] = (
    *(_told(fault, "told", _DETAIL | _LOCATION) for fault in FAULTS),
    *(_told(_BY_NAME[name], "detail", _DETAIL) for name in _EXAMPLES),
    *(_told(_BY_NAME[name], "location", _LOCATION) for name in _EXAMPLES),
    _one(
        "detail_two_places",
        "errors of one process from two places, with FAN_REPORT_DETAILED_ERROR",
        _two_places,
        _TRIGGER.log,
        (_BAD_CRC, _SUPERBLOCK),
    ),
    *(
        _one(
            f"inode_mark_{fstype}",
            "writeback of a file fails that has an inode mark",
            _inode_marks(fstype, own=True),
            WRITEBACK_LOG[fstype],
            (_EIO,),
        )
        for fstype in ("ext4", "xfs")
    ),
    *(
        _one(
            f"inode_mark_{fstype}_others",
            "writeback of a file fails; neighbour and root directory have inode marks",
            _inode_marks(fstype, own=False),
            WRITEBACK_LOG[fstype],
        )
        for fstype in ("ext4", "xfs")
    ),
    _one(
        "inode_mark_and_filesystem",
        "an error of an inode with a mark, on a file system with one",
        _both_marks,
        _LISTING.log,
        (_BAD_CRC, _SUPERBLOCK),
    ),
    _one(
        "inode_mark_superblock",
        "an error of the superblock, whose root directory has an inode mark",
        _superblock_not_for_inodes,
        _TRIGGER.log,
    ),
)
