"""How file systems end: by an error, because somebody asks, because their device goes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from fserr_bpf_compare.faults import ext4, xfs
from fserr_bpf_compare.faults.fault import (
    EFSCORRUPTED,
    Expected,
    TriggerProcess,
    in_mount,
    nothing,
    run_child,
    write_file,
)
from fserr_bpf_compare.faults.scratch import Scratch, run

_BY_NAME = {fault.name: fault for fault in ext4.FAULTS}
_BUCKETS = 64  # XFS_AGI_UNLINKED_BUCKETS
# xfs_io sends XFS_IOC_GOINGDOWN, which ext4 and f2fs know by the same number
_SHUT_DOWN = ("xfs_io", "-x", "-c", "shutdown")


@dataclass(frozen=True)
class End:
    """A way in which a file system ends.

    ``log`` is what the kernel then logs, "" if some log nothing, ``reason`` a word of
    ``origin.reason``. ``before`` are the errors that come before the end.
    ``mount_options`` replace the usual ones.
    ``untyped``: also seen where modules have no type information (Debian's 5.10).
    """

    name: str
    fstype: str
    summary: str
    log: str
    reason: str
    damage: Callable[[Scratch], None]
    cause: Callable[[Scratch], TriggerProcess]
    before: frozenset[Expected] = frozenset()
    mkfs_options: tuple[str, ...] = ()
    mount_options: tuple[str, ...] | None = None
    untyped: bool = False

    def expected(self) -> frozenset[Expected]:
        """Each distinct error in the stream ``proposed``."""
        return self.before | {Expected(errno.ESHUTDOWN, "sb")}


def _damage_unlinked(fs: Scratch) -> None:
    """The list of unlinked inodes that the first file will be put on leads to the second."""
    first, second = (write_file(fs, name) for name in ("victim", "other"))
    fs.unmount()
    bucket = f"write -d unlinked[{first % _BUCKETS}] {second}"
    run("xfs_db", "-x", "-c", "agi 0", "-c", bucket, fs.device)
    fs.mount()


def _unlink_open(fs: Scratch) -> TriggerProcess:
    path = str(fs.mount_point / "victim")
    return run_child("sh", "-c", 'exec 9< "$0"; rm "$0"', path, path=path)


def _trigger_twice(fs: Scratch) -> TriggerProcess:
    path = f"/sys/fs/ext4/{os.path.basename(fs.device)}/trigger_fs_error"
    return run_child("sh", "-c", 'echo x > "$0"; echo x > "$0"', path, path=path)


_READ_ONLY = ("errors=remount-ro", "noinit_itable")
_READ_ONLY_LOG = r"EXT4-fs \({dev}\): Remounting filesystem read-only"
_CORRUPT = frozenset({Expected(EFSCORRUPTED, "sb")})

ENDS = (
    End(
        name="ext4_end_error",
        fstype="ext4",
        summary="two errors of an ext4 with errors=remount-ro",
        log=_READ_ONLY_LOG,
        reason="corruption",
        damage=nothing,
        cause=_trigger_twice,
        before=_CORRUPT,
        mount_options=_READ_ONLY,
    ),
    End(
        name="ext4_end_no_journal",
        fstype="ext4",
        summary="the same without a journal",
        log=_READ_ONLY_LOG,
        reason="corruption",
        damage=nothing,
        cause=_trigger_twice,
        before=_CORRUPT,
        mkfs_options=("-O", "^has_journal"),
        mount_options=_READ_ONLY,
    ),
    End(
        name="ext4_end_group",
        fstype="ext4",
        summary="an error of a block group, which no kernel reports, with errors=remount-ro",
        log=_READ_ONLY_LOG,
        reason="corruption",
        damage=_BY_NAME["ext4_grp_locked"].damage,
        cause=_BY_NAME["ext4_grp_locked"].cause,
        before=_CORRUPT,
        mount_options=_READ_ONLY,
    ),
    End(
        name="ext4_end_abort",
        fstype="ext4",
        summary="remounts an ext4 with -o abort",
        log=r"EXT4-fs error \(device {dev}\): .* Abort forced by user",
        reason="requested",
        damage=nothing,
        cause=_BY_NAME["ext4_abort"].cause,
        untyped=True,
    ),
    End(
        name="ext4_end_shutdown",
        fstype="ext4",
        summary="shuts an ext4 down by ioctl",
        log=r"EXT4-fs \({dev}\): shut down requested",
        reason="requested",
        damage=nothing,
        cause=in_mount("", *_SHUT_DOWN),
    ),
    End(
        name="xfs_end_unlinked",
        fstype="xfs",
        summary="unlinks an open file while the list of unlinked inodes leads to a linked one",
        log=r"XFS \({dev}\): Corruption of in-memory data .*detected",
        reason="corruption",
        damage=_damage_unlinked,
        cause=_unlink_open,
        before=_CORRUPT,
    ),
    End(
        name="xfs_end_shutdown",
        fstype="xfs",
        summary="shuts an XFS down by ioctl",
        log=r"XFS \({dev}\): User initiated shutdown",
        reason="requested",
        damage=nothing,
        cause=in_mount("", *_SHUT_DOWN),
    ),
    End(
        name="xfs_end_write_verifier",
        fstype="xfs",
        summary="a superblock that XFS refuses to write",
        log=r"XFS \({dev}\): Metadata corruption detected at xfs_sb_write_verify",
        reason="corruption",
        damage=next(f.damage for f in xfs.FAULTS if f.name == "xfs_write_verifier"),
        cause=next(f.cause for f in xfs.FAULTS if f.name == "xfs_write_verifier"),
        before=_CORRUPT,
        mkfs_options=("-m", "reflink=0,finobt=0,rmapbt=0"),
    ),
    End(
        name="f2fs_end_shutdown",
        fstype="f2fs",
        summary="shuts an f2fs down by ioctl",
        log="",  # 6.1 has no message
        reason="requested",
        damage=nothing,
        cause=in_mount("", *_SHUT_DOWN),
    ),
)
