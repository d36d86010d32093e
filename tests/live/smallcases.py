"""Damage of file systems that few have, found on the disk by what was written there."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch

Watch = Callable[[Scratch], None]
Break = Callable[[Scratch], Path]
"""Damages a mounted file system, which it leaves unmounted; gives what to read then."""


def play(fstype: str, damage: Break) -> Callable[[ExitStack, Watch], None]:
    """Damage one of ``fstype``, and read what it has become."""

    def played(stack: ExitStack, watch: Watch) -> None:
        fs = stack.enter_context(scratch(fstype))
        victim = damage(fs)
        fs.mount()
        watch(fs)
        path = str(victim)
        run_child("sh", "-c", 'ls "$0" && cat "$0"', path, path=path)

    return played


def f2fs_address(fs: Scratch) -> Path:
    """A block of a file that is not on the device (``struct f2fs_inode``)."""
    victim = fs.mount_point / "victim"
    victim.write_bytes(b"x" * 65536)  # more than is kept in the inode
    fs.unmount()
    name = victim.name.encode()
    label = struct.pack("<I", len(name)) + name  # i_namelen, i_name
    # there may be older versions
    inodes = [at - 88 for at in _places(fs, label) if (at - 88) % 4096 == 0]
    assert inodes
    for inode in inodes:
        fs.overwrite(inode + 348, struct.pack("<3xx8xI", 0x7FFFFFFF))  # i_ext, i_addr[0]
    return victim


def vfat_chain(fs: Scratch) -> Path:
    """A chain of clusters that leads nowhere."""
    victim = fs.mount_point / "victim"
    victim.write_bytes(b"x" * 65536)
    fs.unmount()
    image = fs.image.read_bytes()
    (reserved,) = struct.unpack_from("<H", image, 14)  # sectors in front of the FAT
    entries = memoryview(image)[reserved * 512 :][:4096].cast("H")
    first = next(cluster for cluster in range(2, len(entries)) if entries[cluster])
    fs.overwrite(reserved * 512 + 2 * first, struct.pack("<H", 1))
    return victim


def nilfs2_directory(fs: Scratch) -> Path:
    """An entry of a directory without length (``struct nilfs_dir_entry``)."""
    folder = fs.mount_point / "folder"
    folder.mkdir()
    (folder / "victim").touch()
    # the mount looks at what was written last, and would go back to what was before
    run("sync", "-f", str(folder))
    (fs.mount_point / "later").touch()
    fs.unmount()
    for at in _places(fs, b"\x06\x01victim"):  # name_len, a regular file
        fs.overwrite(at - 2, bytes(2))
    return folder


def jfs_inode(fs: Scratch) -> Path:
    """An inode that has another's number (``struct dinode``)."""
    victim = fs.mount_point / "victim"
    victim.write_bytes(b"x")
    number = struct.pack("<II", 16, victim.stat().st_ino)  # di_fileset, di_number
    fs.unmount()
    inodes = [at - 4 for at in _places(fs, number) if (at - 4) % 512 == 0]
    assert inodes
    for inode in inodes:
        fs.overwrite(inode + 8, struct.pack("<I", 0x7FFFFFFF))
    return victim


def ocfs2_inode(fs: Scratch) -> Path:
    """An inode without its signature (``struct ocfs2_dinode``), in the block of its number."""
    victim = fs.mount_point / "victim"
    victim.write_bytes(b"x")
    block = victim.stat().st_ino
    fs.unmount()
    fs.overwrite(block * 4096, b"NOTHING")
    return victim


def _places(fs: Scratch, content: bytes) -> Iterator[int]:
    """Where ``content`` is in the image, in bytes."""
    image, begin = fs.image.read_bytes(), -1
    while (begin := image.find(content, begin + 1)) >= 0:
        yield begin
