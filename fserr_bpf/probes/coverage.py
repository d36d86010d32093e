"""What is seen of which file system, by which probe, and what is not, as data.

The stream is `proposed`. `docs/coverage.md` is made of this table; a test holds every fault
against it: an error in the kernel's log that is no event has to be in ``UNSEEN``.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.table import ENDS
from fserr_bpf.uapi.record import Probe

# Who calls fserror_report() and its kin, by the undefined symbols of Debian's 7.3.4 modules:
# metadata and the end, the end alone, and data through iomap.
_REPORT_METADATA = ("ext4", "xfs", "f2fs")
_REPORT_ENDS = (*_REPORT_METADATA, "btrfs")
_REPORT_DATA = ("xfs", "gfs2", "zonefs", "ntfs")


class Seen(NamedTuple):
    """Errors of ``fstype`` that any of ``probes`` sees."""

    fstype: str
    what: str
    probes: tuple[Probe, ...]


class Unseen(NamedTuple):
    """Errors of ``fstype`` that no probe sees, "" for any file system.

    ``log`` is a regular expression for what the kernel logs of them, "" if it logs nothing.
    """

    fstype: str
    what: str
    log: str
    why: str


SEEN: tuple[Seen, ...] = (
    Seen("ext4", "errors of the superblock", (Probe.EXT4_ERROR,)),
    Seen("ext4", "errors of an inode", (Probe.EXT4_ERROR_INODE,)),
    Seen("ext4", "errors of an open file", (Probe.EXT4_ERROR_FILE,)),
    Seen("ext4", "errors of the journal", (Probe.EXT4_STD_ERROR, Probe.EXT4_ABORT)),
    Seen("ext4", "errors of block groups", (Probe.EXT4_GROUP_LOCKED,)),
    Seen("ext4", "the end: read-only, journal aborted, shut down", (Probe.EXT4_END,)),
    Seen(
        "xfs", "buffers that their verifier refuses", (Probe.XFS_BUF_VERIFIER, Probe.XFS_BUF_TRACE)
    ),
    Seen(
        "xfs",
        "metadata that cannot be read or written",
        (Probe.XFS_BUF_IOERROR, Probe.XFS_BUF_TRACE),
    ),
    Seen("xfs", "corrupt inodes", (Probe.XFS_INODE_VERIFIER, Probe.XFS_INODE_SICK)),
    Seen("xfs", "corruption found outside of verifiers", (Probe.XFS_CORRUPTION,)),
    Seen("xfs", "buffers found corrupt after they were read", (Probe.XFS_BUF_CORRUPT,)),
    Seen("xfs", "the end: shut down", (Probe.XFS_END,)),
    Seen("btrfs", "the first fatal error", (Probe.BTRFS_ERROR,)),
    Seen(
        "btrfs", "what is counted per device: checksums of data, failed bios", (Probe.BTRFS_DEVICE,)
    ),
    Seen("btrfs", "the end: forced to be read-only, shut down", (Probe.BTRFS_END,)),
    Seen("f2fs", "corrupt metadata", (Probe.F2FS_ERROR,)),
    Seen("f2fs", "the end: checkpoints stopped", (Probe.F2FS_END,)),
    Seen("vfat", "errors of metadata", (Probe.FAT_ERROR,)),
    Seen("nilfs2", "errors of metadata", (Probe.NILFS2_ERROR,)),
    Seen("jfs", "errors of metadata", (Probe.JFS_ERROR,)),
    Seen("ocfs2", "errors of metadata", (Probe.OCFS2_ERROR,)),
    Seen("", "writes of data that fail in the page cache", (Probe.WRITEBACK,)),
)

UNSEEN: tuple[Unseen, ...] = (
    Unseen(
        "",
        "reads of data that fail, direct I/O that fails",
        r"I/O error, dev |Buffer I/O error on dev",
        "no function of the kernel sees them for all file systems; the reader gets EIO",
    ),
    Unseen(
        "ext4",
        "directories that cannot be read, damage that is only a warning",
        r"EXT4-fs warning \(device",
        "warnings are no errors to ext4; most come from checks that it goes on after",
    ),
    Unseen(
        "ext4",
        "errors after the first, unless mounted with errors=continue",
        r"EXT4-fs error \(device .*Detected aborted journal|previous I/O error to superblock",
        "6.12 and later say nothing more themselves; the end has been told",
    ),
    Unseen(
        "ext4",
        "errors during a mount",
        r"EXT4-fs \(\S+\): (?:error loading journal|get root inode failed|VFS: Can't find ext4)",
        "there is no mark yet",
    ),
    Unseen(
        "xfs",
        "pointers and records of btrees that are wrong in blocks whose verifier is content",
        r"XFS \(\S+\): .*(?:Corrupt \S+ (?:\d+ )?pointer|(?:BTree|bt) record corruption)",
        "XFS tells its health code alone of them, which is told of what verifiers refuse too",
    ),
    Unseen(
        "btrfs",
        "blocks of metadata with a bad checksum or a corrupt leaf, until that is fatal",
        r"BTRFS (?:critical|error|warning) \(device .*(?:corrupt (?:leaf|node)|"
        r"tree block corruption|checksum verify failed|parent transid|bad tree block)",
        "btrfs has no one function for them: only the result of a read tells",
    ),
    Unseen(
        "btrfs",
        "errors after the first fatal one",
        r"BTRFS: error \(device [^)]*state \w*E",
        "btrfs calls again for whatever ends with its transaction; the end has been told",
    ),
    Unseen(
        "jfs",
        "everything, up to 6.12 at least, unless its log is on another device",
        r"ERROR: \(device ",
        "it has no fsid then: the kernel takes no mark",
    ),
    Unseen("exfat", "everything", r"exFAT-fs ", "it has no file handles: no kernel takes a mark"),
    Unseen(
        "gfs2",
        "withdraws",
        r"GFS2: fsid=",
        "no probe: none was caused here; failed writes are seen",
    ),
    Unseen(
        "squashfs", "everything", r"SQUASHFS error", "it reports to nobody and is never written"
    ),
    Unseen("erofs", "everything", r"erofs: ", "it reports to nobody and is never written"),
)


def not_seen(driver: str, stream: Stream, present: Set[Probe]) -> tuple[str, ...]:
    """What ``stream`` does not have of file systems of ``driver`` where ``present`` report."""
    own = {probe for row in SEEN if row.fstype == driver for probe in row.probes} & present
    reports = Probe.FSERROR in present
    writes = Probe.WRITEBACK in present and (stream is Stream.PROPOSED or driver == "xfs")
    heard = {
        "metadata": bool(own - ENDS) or (reports and driver in _REPORT_METADATA),
        "the end": bool(own & ENDS) or (reports and driver in _REPORT_ENDS),
        "failed writes": writes or (reports and driver in _REPORT_DATA),
        "failed reads": reports and driver in _REPORT_DATA,
    }
    return tuple(what for what, is_heard in heard.items() if not is_heard)
