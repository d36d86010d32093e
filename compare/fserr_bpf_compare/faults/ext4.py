"""Faults of ext4's metadata."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

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

# 64 MB in one group, so that there is no other one to turn to.
_ONE_GROUP = ("-b", "4096")
_ALLOCATE = ("xfs_io", "-f", "-c", "falloc 0 4096")
_I_ATIME = 8  # byte offset in struct ext4_inode


def debugfs(fs: Scratch, request: str, *options: str) -> str:
    return run("debugfs", *options, "-R", request, fs.device)


def ext4_block_size(fs: Scratch) -> int:
    return number_in(r"Block size:\s+(\d+)", run("dumpe2fs", "-h", fs.device))


def _group_offset(fs: Scratch, what: str) -> int:
    """Byte offset of the ``what`` of the first group, as in "Inode bitmap at 275"."""
    block = number_in(rf"{what} at (\d+)", run("dumpe2fs", fs.device))
    return block * ext4_block_size(fs)


def _mount_without_thread(fs: Scratch) -> None:
    # The thread ext4lazyinit, which a writable mount starts, reads the block bitmaps ahead
    # and would meet the error first. Remounting starts it only to initialise inode tables.
    fs.mount("ro")
    run("mount", "-o", "remount,rw", str(fs.mount_point))


def _ext4_trigger(fs: Scratch) -> TriggerProcess:
    path = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    return run_child("sh", "-c", 'echo x > "$0"', path, path=str(fs.mount_point))


def _damage_ext4_bad_inode(fs: Scratch) -> None:
    write_file(fs, "victim")
    fs.unmount()
    # The magic of the extent header; debugfs writes a matching inode checksum.
    debugfs(fs, "set_inode_field victim block[0] 0", "-w")
    fs.mount()


def _damage_ext4_bad_extent(fs: Scratch) -> None:
    # More holes than the inode has room for extents: the tree gets a leaf block.
    with open(fs.mount_point / "victim", "wb") as file:
        for index in range(16):
            os.pwrite(file.fileno(), b"x" * 4096, index * 16384)
    fs.unmount()
    leaf = number_in(r"\(ETB0\):(\d+)", debugfs(fs, "stat victim"))
    fs.overwrite(leaf * ext4_block_size(fs), bytes(2))  # eh_magic
    fs.mount()


def _damage_ext4_htree_checksum(fs: Scratch) -> None:
    fill_directory(fs, 400)
    fs.unmount()
    leaf = number_in(r"(\d+)", debugfs(fs, "bmap dir 1"))
    block_size = ext4_block_size(fs)
    # Any change will do: nothing of the block is looked at before its checksum.
    fs.overwrite(leaf * block_size + block_size // 2, b"\xff" * 4)
    fs.mount()


def _damage_ext4_bad_mode(fs: Scratch) -> None:
    write_file(fs, "victim")
    fs.unmount()
    debugfs(fs, "set_inode_field victim mode 0170644", "-w")  # no type has all four bits
    fs.mount()


def _damage_ext4_inode_checksum(fs: Scratch) -> None:
    write_file(fs, "victim")
    fs.unmount()
    output = debugfs(fs, "imap victim")
    block = number_in(r"located at block (\d+), offset", output)
    offset = int(output.rpartition("offset 0x")[2], 16)
    fs.overwrite(block * ext4_block_size(fs) + offset + _I_ATIME, b"\xff" * 4)
    fs.mount()


def _damage_ext4_block_bitmap(fs: Scratch) -> None:
    fs.unmount()
    block = _group_offset(fs, "Block bitmap") // ext4_block_size(fs)
    debugfs(fs, f"freeb {block}", "-w")
    _mount_without_thread(fs)


def _damage_bitmap_checksum(what: str) -> Callable[[Scratch], None]:
    def damage(fs: Scratch) -> None:
        fs.unmount()
        # The middle of both bitmaps is free in a new file system.
        fs.overwrite(_group_offset(fs, what) + ext4_block_size(fs) // 8, b"\xff")
        _mount_without_thread(fs)

    return damage


def _damage_ext4_grp_locked(fs: Scratch) -> None:
    write_file(fs, "victim")
    fs.unmount()
    block = number_in(r"(\d+)", debugfs(fs, "bmap victim 0"))
    debugfs(fs, f"freeb {block}", "-w")
    fs.mount()


def _ext4_abort(fs: Scratch) -> TriggerProcess:
    path = str(fs.mount_point)
    return run_child("mount", "-o", "remount,abort", path, path=path)


FAULTS = (
    Fault(
        name="ext4_trigger",
        fstype="ext4",
        summary="writes to trigger_fs_error in sysfs",
        log=r"EXT4-fs error \(device {dev}\): trigger_test_error:\d+: comm sh: x",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(5, 16),
        damage=nothing,
        cause=_ext4_trigger,
    ),
    Fault(
        name="ext4_bad_inode",
        fstype="ext4",
        summary="opens a file whose inode has no valid extent header",
        log=r"EXT4-fs error \(device {dev}\): .* comm cat: .* invalid magic",
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_bad_inode,
        cause=in_mount("victim", "cat"),
    ),
    Fault(
        name="ext4_bad_extent",
        fstype="ext4",
        summary="looks for data in a file with a good inode and a broken extent tree",
        log=r"EXT4-fs error \(device {dev}\): .* comm xfs_io: .* invalid magic",
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_bad_extent,
        # A read would meet the error once per block of the readahead.
        cause=in_mount("victim", "xfs_io", "-r", "-c", "seek -d 0"),
        handle_reachable=True,
    ),
    Fault(
        name="ext4_htree_checksum",
        fstype="ext4",
        summary="lists an indexed directory with a wrong checksum in a leaf block",
        log=r"EXT4-fs error \(device {dev}\): .* comm ls: .* failed checksum",
        expected=(Expected(EFSBADCRC, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_htree_checksum,
        cause=in_mount("dir", "ls"),
        handle_reachable=True,
    ),
    Fault(
        name="ext4_bad_mode",
        fstype="ext4",
        summary="opens a file whose inode is of no known type",
        log=r"EXT4-fs error \(device {dev}\): .* comm cat: .*bogus i_mode",
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_bad_mode,
        cause=in_mount("victim", "cat"),
    ),
    Fault(
        name="ext4_inode_checksum",
        fstype="ext4",
        # Before its generation is known: __ext4_iget() checks that first.
        summary="opens a file whose inode has a wrong checksum",
        log=r"EXT4-fs error \(device {dev}\): .* comm cat: iget: checksum invalid",
        expected=(Expected(EFSBADCRC, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_inode_checksum,
        cause=in_mount("victim", "cat"),
    ),
    Fault(
        name="ext4_block_bitmap",
        fstype="ext4",
        summary="allocates a block by a bitmap that has itself as free",
        log=r"EXT4-fs error \(device {dev}\): .* comm xfs_io: .*invalid block bitmap",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(5, 16),
        damage=_damage_ext4_block_bitmap,
        cause=in_mount("new", *_ALLOCATE),
        # With flex_bg the contents are not looked at: see ext4_valid_block_bitmap().
        mkfs_options=(*_ONE_GROUP, "-O", "^flex_bg"),
    ),
    Fault(
        name="ext4_block_bitmap_checksum",
        fstype="ext4",
        # Reported without a number of its own, whatever the caller returns.
        summary="allocates a block by a bitmap with a wrong checksum",
        log=r"EXT4-fs error \(device {dev}\): .* comm xfs_io: .*bad block bitmap checksum",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(5, 16),
        damage=_damage_bitmap_checksum("Block bitmap"),
        cause=in_mount("new", *_ALLOCATE),
        mkfs_options=_ONE_GROUP,
    ),
    Fault(
        name="ext4_inode_bitmap_checksum",
        fstype="ext4",
        summary="allocates an inode by a bitmap with a wrong checksum",
        log=r"EXT4-fs error \(device {dev}\): .* comm touch: Corrupt inode bitmap",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(5, 16),
        damage=_damage_bitmap_checksum("Inode bitmap"),
        cause=in_mount("new", "touch"),
        mkfs_options=_ONE_GROUP,
    ),
    Fault(
        name="ext4_grp_locked",
        fstype="ext4",
        summary="frees a block in a group with a wrong bitmap: logged, never reported",
        log=r"EXT4-fs error \(device {dev}\): ext4_mb_generate_buddy:",
        expected=(),
        proposed=(Expected(EFSCORRUPTED, "sb"),),
        unpatched=(Expected(EFSCORRUPTED, "sb"),),
        native_since=None,
        damage=_damage_ext4_grp_locked,
        cause=in_mount("victim", "rm"),
    ),
    Fault(
        name="ext4_abort",
        fstype="ext4",
        summary="remounts with -o abort",
        log=r"EXT4-fs error \(device {dev}\): .* Abort forced by user",
        expected=(Expected(errno.ESHUTDOWN, "sb"),),
        native_since=(5, 16),
        damage=nothing,
        cause=_ext4_abort,
    ),
)
