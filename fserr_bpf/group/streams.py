"""What each stream makes of a record: an error of which form, or nothing.

``docs/streams.md`` has the same rules in prose. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.table import ENDS, UNSENT
from fserr_bpf.uapi.errno import EFSBADCRC, EFSCORRUPTED
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import Flag, Probe, Record

ESHUTDOWN = 108

_XFS_MAGIC = 0x58465342
_BTRFS_MAGIC = 0x9123683E
_EXT4_ERR_ESHUTDOWN = 16  # fs/ext4/ext4.h
_BTREE_INODE = 1  # BTRFS_BTREE_INODE_OBJECTID: all metadata of a btrfs
# who asked for the end comes first: all else is then how it was done
_REASONS = (
    (int(Flag.REQUESTED), ErrorKind.SHUTDOWN_REQUESTED),
    (int(Flag.DEVICE_REMOVED), ErrorKind.SHUTDOWN_DEVICE_REMOVED),
    (int(Flag.LOG_IO), ErrorKind.SHUTDOWN_LOG_IO),
    (int(Flag.CORRUPTION), ErrorKind.SHUTDOWN_CORRUPTION),
    (int(Flag.METADATA_IO), ErrorKind.SHUTDOWN_METADATA_IO),
)
_WORDS = {
    ErrorKind.SHUTDOWN_REQUESTED: "requested",
    ErrorKind.SHUTDOWN_DEVICE_REMOVED: "device removed",
    ErrorKind.SHUTDOWN_LOG_IO: "log I/O error",
    ErrorKind.SHUTDOWN_CORRUPTION: "corruption",
    ErrorKind.SHUTDOWN_METADATA_IO: "metadata I/O error",
}

_HAS_INODE = int(Flag.HAS_INODE)
_END = "end"
_UNFINISHED = int(Flag.IGET)
_SICK_CORE = int(Flag.SICK_CORE)


class Report(NamedTuple):
    """One error as ``fsnotify_sb_error()`` gets it: signed errno, with an inode or without.

    ``merges_as``: it merges with reports of the same word only. The end of a file system must
    not disappear in another event, and what a device is counted for not hide the file.
    """

    error: int
    inode: bool
    merges_as: str = ""


Rule = Callable[[Record], Report | None]


def kind_of(record: Record, error: int) -> ErrorKind:
    """What failed, for a detail record; ``error`` is that of the report."""
    if abs(error) == ESHUTDOWN:
        return next((kind for flag, kind in _REASONS if record.flags & flag), ErrorKind.SHUTDOWN)
    if record.probe == Probe.WRITEBACK:
        return ErrorKind.WRITEBACK
    if record.probe == Probe.EXT4_STD_ERROR:
        return ErrorKind.JOURNAL
    return ErrorKind.METADATA


def reason_of(record: Record, error: int) -> str:
    """Why a file system has ended, in words; "" if that is not known or it has not."""
    return _WORDS.get(kind_of(record, error), "")


def names_place(record: Record) -> bool:
    """Whether ``function`` and ``line`` are a place that the file system names itself."""
    return record.probe in _NAMES_PLACE and record.function[:1] != b"\0"


def _as_passed(record: Record) -> Report:
    """ext4 up to 6.19: the sign that the function got, 0 means EFSCORRUPTED."""
    return Report(record.error or EFSCORRUPTED, bool(record.flags & _HAS_INODE))


def _positive(record: Record) -> Report:
    """An errno as user space knows it."""
    return Report(abs(record.error) or EFSCORRUPTED, bool(record.flags & _HAS_INODE))


def _abort(record: Record) -> Report:
    """remount,abort passed ext4's own number until 124e7c61deb2 (5.16, 5.10.220)."""
    error = ESHUTDOWN if record.error == _EXT4_ERR_ESHUTDOWN else abs(record.error)
    return Report(error or EFSCORRUPTED, False)


def _finished_inode(record: Record) -> Report:
    """7.x, ``xfs_inode_report_fserror()``: half-built inodes are the superblock's."""
    inode = bool(record.flags & _HAS_INODE) and not record.flags & _UNFINISHED
    return Report(abs(record.error), inode)


def _corrupt_buffer(record: Record) -> Report | None:
    """Stands in for mark_sick up to 6.8: 7.x says EFSCORRUPTED for either kind."""
    corrupt = abs(record.error) in (EFSCORRUPTED, EFSBADCRC)
    return Report(EFSCORRUPTED, False) if corrupt else None


def _corrupt_inode(record: Record) -> Report:
    return Report(EFSCORRUPTED, _finished_inode(record).inode)


def _iomap_writeback(record: Record) -> Report | None:
    """7.x reports writeback from iomap only; of the file systems here XFS uses it."""
    return _positive(record) if record.magic == _XFS_MAGIC else None


def _writeback(record: Record) -> Report:
    """Any file's writeback error; btrfs metadata has no file."""
    if record.magic == _BTRFS_MAGIC and record.ino == _BTREE_INODE:
        return Report(abs(record.error), False)
    return _positive(record)


def _proposed_ext4(record: Record) -> Report:
    """``remount,abort`` is reported like an error, and is an end."""
    report = _positive(record)
    return report._replace(merges_as=_END if report.error == ESHUTDOWN else "")


def _proposed_abort(record: Record) -> Report:
    report = _abort(record)
    return report._replace(merges_as=_END if report.error == ESHUTDOWN else "")


def _end(record: Record) -> Report:
    """The file system has ended: the probes tell it once."""
    return Report(abs(record.error), False, _END)


def _device(record: Record) -> Report:
    """What btrfs counts for one of its devices."""
    return Report(abs(record.error), False, "device")


def _sick_core(record: Record) -> Report | None:
    """Stands in for the inode verifier where that cannot be probed."""
    return _positive(record) if record.flags & _SICK_CORE else None


_EXT4: tuple[int, ...] = (
    Probe.EXT4_ERROR,
    Probe.EXT4_ERROR_INODE,
    Probe.EXT4_ERROR_FILE,
    Probe.EXT4_STD_ERROR,
    Probe.EXT4_ABORT,
)


_NAMES_PLACE = frozenset(
    {
        *_EXT4,
        Probe.XFS_BUF_IOERROR,
        Probe.XFS_BUF_VERIFIER,
        Probe.XFS_BUF_TRACE,
        Probe.XFS_INODE_VERIFIER,
        Probe.XFS_CORRUPTION,
        Probe.XFS_BUF_CORRUPT,
        Probe.EXT4_GROUP_LOCKED,
        Probe.EXT4_END,
    }
)


def _ext4(rule: Rule) -> dict[int, Rule]:
    return dict.fromkeys(_EXT4, rule)


RULES: Mapping[Stream, Mapping[int, Rule]] = {
    Stream.NATIVE: _ext4(_as_passed) | {Probe.FSERROR: _positive},
    Stream.FSERROR: _ext4(_positive)
    | {
        Probe.EXT4_ABORT: _abort,
        Probe.FSERROR: _positive,
        Probe.EXT4_SHUTDOWN: _positive,
        Probe.XFS_INODE_SICK: _finished_inode,
        Probe.XFS_GROUP_SICK: _positive,
        Probe.XFS_FS_SICK: _positive,
        Probe.XFS_BUF_IOERROR: _corrupt_buffer,
        Probe.XFS_BUF_VERIFIER: _corrupt_buffer,
        Probe.XFS_BUF_TRACE: _corrupt_buffer,
        Probe.XFS_INODE_VERIFIER: _corrupt_inode,
        Probe.XFS_SHUTDOWN: _positive,
        Probe.WRITEBACK: _iomap_writeback,
    },
    Stream.PROPOSED: _ext4(_proposed_ext4)
    | dict.fromkeys(UNSENT, _positive)
    | dict.fromkeys(ENDS, _end)
    | {
        Probe.BTRFS_DEVICE: _device,
        Probe.EXT4_ABORT: _proposed_abort,
        Probe.XFS_BUF_IOERROR: _positive,
        Probe.XFS_BUF_VERIFIER: _positive,
        Probe.XFS_BUF_TRACE: _positive,
        Probe.XFS_INODE_VERIFIER: _positive,
        Probe.XFS_INODE_SICK: _sick_core,
        Probe.WRITEBACK: _writeback,
    },
}
