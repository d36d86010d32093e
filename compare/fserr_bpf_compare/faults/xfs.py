"""Faults of XFS's metadata."""

from __future__ import annotations

import errno
import os
import sys

from fserr_bpf_compare.faults.fault import (
    EFSBADCRC,
    EFSCORRUPTED,
    Expected,
    Fault,
    TriggerProcess,
    fill_directory,
    in_mount,
    nothing,
    number_in,
    run_child,
    write_file,
)
from fserr_bpf_compare.faults.scratch import Scratch, run

# With these features mounting reads and reserves in every allocation group: it would
# meet the damage itself, or take what is reserved from the free space.
_NO_RESERVATIONS = ("-m", "reflink=0,finobt=0,rmapbt=0")
_TOO_MANY_RECORDS = 60000  # for a block of 4096 bytes
_XATTR = "user.name"


def _xfs_db(fs: Scratch, *requests: str, write: bool = False) -> str:
    arguments = [part for request in requests for part in ("-c", request)]
    return run("xfs_db", "-x" if write else "-r", *arguments, fs.device)


def _damage_xfs_agf(fs: Scratch) -> None:
    write_file(fs, "file")
    fs.unmount()
    _xfs_db(fs, "agf 0", "write -d length 1", write=True)
    fs.mount()


def _damage_xfs_agi(fs: Scratch) -> None:
    fs.unmount()
    # That of group 0 is read when the root directory is.
    _xfs_db(fs, "agi 1", "write -d level 200", write=True)
    fs.mount()


def _damage_xfs_bnobt(fs: Scratch) -> None:
    write_file(fs, "file")
    fs.unmount()
    _xfs_db(fs, "agf 0", "addr bnoroot", f"write -d numrecs {_TOO_MANY_RECORDS}", write=True)
    fs.mount()


def _damage_xfs_inode(fs: Scratch) -> None:
    ino = write_file(fs, "victim")
    fs.unmount()
    _xfs_db(fs, f"inode {ino}", "write -d core.format 9", write=True)
    fs.mount()


def _damage_xfs_dirblock(fs: Scratch) -> None:
    ino = fill_directory(fs, 40)
    fs.unmount()
    sector = number_in(r"daddr is (\d+)", _xfs_db(fs, f"inode {ino}", "dblock 0", "daddr"))
    fs.overwrite(sector * 512 + 100, b"\xff" * 4)
    fs.mount()


def _damage_xfs_attrblock(fs: Scratch) -> None:
    ino = write_file(fs, "victim")
    # More than the inode has room for, and little enough for one leaf.
    os.setxattr(fs.mount_point / "victim", _XATTR, b"x" * 1024)
    fs.unmount()
    _xfs_db(fs, f"inode {ino}", "ablock 0", f"write -d hdr.count {_TOO_MANY_RECORDS}", write=True)
    fs.mount()


def _read_xattr(fs: Scratch) -> TriggerProcess:
    path = str(fs.mount_point / "victim")
    program = "import os, sys; os.getxattr(*sys.argv[1:])"
    return run_child(sys.executable, "-c", program, path, _XATTR, path=path)


def _damage_xfs_bmbt(fs: Scratch) -> None:
    # More extents than the inode has room for: they move to a block of a btree.
    # Inside of the file's size XFS allocates nothing in advance.
    with open(fs.mount_point / "victim", "wb") as file:
        os.ftruncate(file.fileno(), 64 * 16384)
        for index in range(64):
            os.pwrite(file.fileno(), b"x" * 4096, index * 16384)
        ino = os.fstat(file.fileno()).st_ino
    fs.unmount()
    _xfs_db(
        fs,
        f"inode {ino}",
        "addr u3.bmbt.ptrs[1]",
        f"write -d numrecs {_TOO_MANY_RECORDS}",
        write=True,
    )
    fs.mount()


def _damage_xfs_write_verifier(fs: Scratch) -> None:
    # All blocks free is as many as may be on the disk, where it is not looked at while
    # some are in use. More than all may not be written (xfs_validate_sb_write()).
    with open(fs.mount_point / "victim", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 << 20)
    fs.unmount()
    blocks = number_in(r"dblocks = (\d+)", _xfs_db(fs, "sb 0", "print dblocks"))
    _xfs_db(fs, "sb 0", f"write -d fdblocks {blocks}", write=True)
    fs.mount()


def _write_superblock(fs: Scratch) -> TriggerProcess:
    path = str(fs.mount_point)
    return run_child("sh", "-c", 'rm "$0/victim"; exec mount -o remount,ro "$0"', path, path=path)


FAULTS = (
    Fault(
        name="xfs_agf",
        fstype="xfs",
        summary="allocates from an allocation group with a broken AGF",
        log=r"XFS \({dev}\): Metadata corruption detected at .* xfs_agf ",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(7, 0),
        damage=_damage_xfs_agf,
        cause=in_mount("file", "fallocate", "-l", "1M"),
        mkfs_options=_NO_RESERVATIONS,
    ),
    Fault(
        name="xfs_agi",
        fstype="xfs",
        summary="lists all inodes with a broken AGI in one allocation group",
        log=r"XFS \({dev}\): Metadata corruption detected at .* xfs_agi ",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(7, 0),
        damage=_damage_xfs_agi,
        cause=in_mount("", "xfs_io", "-r", "-c", "bulkstat"),
        mkfs_options=_NO_RESERVATIONS,
    ),
    Fault(
        name="xfs_bnobt",
        fstype="xfs",
        summary="allocates with a broken block in the btree of free space",
        log=r"XFS \({dev}\): Metadata corruption detected at .* xfs_bnobt ",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(7, 0),
        damage=_damage_xfs_bnobt,
        cause=in_mount("file", "fallocate", "-l", "1M"),
        mkfs_options=_NO_RESERVATIONS,
    ),
    Fault(
        name="xfs_inode",
        fstype="xfs",
        summary="opens a file whose inode has an impossible format",
        log=r"XFS \({dev}\): Metadata corruption detected at xfs_dinode_verify",
        # The inode is still being read in, so it has no handle yet.
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(7, 0),
        damage=_damage_xfs_inode,
        cause=in_mount("victim", "cat"),
        # The verifier knows its number already.
        proposed=(Expected(EFSCORRUPTED, "inode"),),
    ),
    Fault(
        name="xfs_dirblock",
        fstype="xfs",
        summary="lists a directory whose block has a wrong checksum",
        log=r"XFS \({dev}\): Metadata CRC error detected at xfs_dir3_block",
        # XFS logs EFSBADCRC and reports EFSCORRUPTED, see xfs_inode_mark_sick().
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(7, 0),
        damage=_damage_xfs_dirblock,
        cause=in_mount("dir", "ls"),
        # A buffer does not know whose it is; its verifier's own error.
        proposed=(Expected(EFSBADCRC, "sb"),),
        handle_reachable=True,
    ),
    Fault(
        name="xfs_attrblock",
        fstype="xfs",
        summary="reads an extended attribute from a broken block",
        log=r"XFS \({dev}\): Metadata corruption detected at .* xfs_attr3_leaf ",
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(7, 0),
        damage=_damage_xfs_attrblock,
        cause=_read_xattr,
        proposed=(Expected(EFSCORRUPTED, "sb"),),
    ),
    Fault(
        name="xfs_bmbt",
        fstype="xfs",
        summary="looks for data in a file with a broken block in its btree of extents",
        log=r"XFS \({dev}\): Metadata corruption detected at .* xfs_bmbt ",
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(7, 0),
        damage=_damage_xfs_bmbt,
        cause=in_mount("victim", "xfs_io", "-r", "-c", "seek -d 0"),
        proposed=(Expected(EFSCORRUPTED, "sb"),),
    ),
    Fault(
        name="xfs_write_verifier",
        fstype="xfs",
        summary="writes a superblock with more free blocks than blocks: XFS refuses, shuts down",
        log=r"XFS \({dev}\): Metadata corruption detected at xfs_sb_write_verify",
        # No health code is called where a buffer is written.
        expected=(Expected(errno.ESHUTDOWN, "sb"),),
        native_since=(7, 0),
        damage=_damage_xfs_write_verifier,
        cause=_write_superblock,
        mkfs_options=_NO_RESERVATIONS,
        proposed=(Expected(EFSCORRUPTED, "sb"), Expected(errno.ESHUTDOWN, "sb")),
        unpatched=(Expected(errno.ESHUTDOWN, "sb"),),
    ),
    Fault(
        name="xfs_shutdown",
        fstype="xfs",
        summary="shuts the file system down by ioctl",
        log=r"XFS \({dev}\): User initiated shutdown",
        expected=(Expected(errno.ESHUTDOWN, "sb"),),
        native_since=(7, 0),
        damage=nothing,
        cause=in_mount("", "xfs_io", "-x", "-c", "shutdown"),
        unpatched=(Expected(errno.ESHUTDOWN, "sb"),),
    ),
)
