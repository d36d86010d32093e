"""What only the proposal has: details of errors, places in the source, marks on inodes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import replace

from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.cutting import (
    MKFS_OPTIONS,
    PAYLOAD,
    WRITEBACK_LOG,
    cut,
    last_victim,
    write_victims,
)
from fserr_bpf_compare.faults.fault import EFSBADCRC, EFSCORRUPTED, Expected, Fault, run_child
from fserr_bpf_compare.scenarios.scenario import Fixture, Need, Scenario, by_stream, fault_scenario

_BY_NAME = {fault.name: fault for fault in FAULTS}
_DETAIL, _LOCATION = FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
_PATCHED = frozenset({Need.PATCHED})
_LISTING = _BY_NAME["ext4_htree_checksum"]
_TRIGGER = _BY_NAME["ext4_trigger"]
# For one flag alone: errors that have a source location, and one that has none.
_EXAMPLES = ("ext4_trigger", "xfs_dirblock", "ext4_writeback")


def _with_records(prefix: str, fault: Fault, flags: int) -> Scenario:
    """The scenario of ``fault`` in groups with ``flags``, which ask for more records."""
    name = f"{prefix}_{fault.name}"
    return replace(fault_scenario(fault, flags), name=name, area="proposed", needs=_PATCHED)


def _two_places(fixture: Fixture) -> None:
    """Two errors of one process from two places: they merge only where nobody asks."""
    fs = fixture.scratch("ext4")
    _LISTING.damage(fs)
    fixture.watch(fs, flags=_DETAIL)
    trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    listing = 'for name in "$0"/dir/*; do :; done'
    script = f'echo x > "$1"; {listing}; echo x > "$1"; echo x > "$1"'
    path = str(fs.mount_point)
    fixture.record(run_child("sh", "-c", script, path, trigger, path=path))


def _inode_marks(fstype: str, *, own: bool) -> Callable[[Fixture], None]:
    """Writeback of one file fails; watched is that file, or its neighbour and its directory."""

    def run(fixture: Fixture) -> None:
        fs = fixture.scratch(fstype, mkfs_options=MKFS_OPTIONS[fstype])
        write_victims(fs)
        path = last_victim(fs)
        other = str(fs.mount_point / "group0/victim")
        fixture.watch(inodes=[path] if own else [other, str(fs.mount_point)])
        dd = ("dd", "if=/dev/zero", f"bs={PAYLOAD}", "count=1", "conv=notrunc,fsync")
        with cut(fs, path):
            fixture.record(run_child(*dd, f"of={path}", path=path))

    return run


def _both_marks(fixture: Fixture) -> None:
    """One event for an inode with a mark on a file system with one."""
    fs = fixture.scratch("ext4")
    _LISTING.damage(fs)
    fixture.watch(fs, inodes=[str(fs.mount_point / "dir")])
    fixture.record(_LISTING.cause(fs))
    fixture.record(_TRIGGER.cause(fs))


def _superblock_not_for_inodes(fixture: Fixture) -> None:
    fs = fixture.scratch("ext4")
    fixture.watch(inodes=[str(fs.mount_point)])
    fixture.record(_TRIGGER.cause(fs))


def _one(
    name: str,
    summary: str,
    run: Callable[[Fixture], None],
    evidence: str,
    errors: Iterable[Expected] = (),
) -> Scenario:
    return Scenario(
        name=name,
        area="proposed",
        summary=summary,
        run=run,
        expected=by_stream(proposed=errors),
        evidence=evidence,
        needs=_PATCHED,
    )


_BAD_CRC = Expected(EFSBADCRC, "inode")
_SUPERBLOCK = Expected(EFSCORRUPTED, "sb")
_EIO = Expected(errno.EIO, "inode")

SCENARIOS: tuple[Scenario, ...] = (
    *(_with_records("detail_and_location", fault, _DETAIL | _LOCATION) for fault in FAULTS),
    *(_with_records("detail", _BY_NAME[name], _DETAIL) for name in _EXAMPLES),
    *(_with_records("location", _BY_NAME[name], _LOCATION) for name in _EXAMPLES),
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
