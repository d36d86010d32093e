"""UUID and label of a file system, read from the superblock on its device.

Once, when it is marked. The device is read, never the mounted file system; a superblock
that does not look like one has no UUID and no label.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple
from uuid import UUID

from fserr_bpf.uapi.dev import Dev


class Volume(NamedTuple):
    """Both "" where they are unknown; ``label`` with surrogates for what is not UTF-8."""

    uuid: str = ""
    label: str = ""


class _Layout(NamedTuple):
    """Offsets in bytes from the start of the device, the label's longest length in bytes."""

    magic_at: int
    magic: bytes
    uuid_at: int
    label_at: int
    label_size: int
    encoding: str = ""


_SIZE = 0x10000 + 0x1000
_LAYOUTS = {
    # struct ext4_super_block: s_magic, s_uuid, s_volume_name
    "ext4": _Layout(0x438, b"\x53\xef", 0x468, 0x478, 16),
    # struct xfs_dsb: sb_magicnum, sb_uuid, sb_fname
    "xfs": _Layout(0, b"XFSB", 32, 108, 12),
    # struct btrfs_super_block at 64 KiB: magic, fsid, label
    "btrfs": _Layout(0x10040, b"_BHRfS_M", 0x10020, 0x1012B, 256),
    # struct f2fs_super_block at 1 KiB: magic, uuid, volume_name
    "f2fs": _Layout(0x400, b"\x10\x20\xf5\xf2", 0x46C, 0x47C, 1024, "utf-16-le"),
}


def volume_of(device: str, fstype: str, dev: Dev) -> Volume:
    """What the superblock on the block device ``device`` says; OSError if it cannot be read.

    Nothing if ``dev``, the file system's device number, is another device's by now. That of
    a btrfs is no device's.
    """
    layout, status = _LAYOUTS.get(fstype), os.stat(device)
    if layout is None or not stat.S_ISBLK(status.st_mode):
        return Volume()
    if fstype != "btrfs" and status.st_rdev != os.makedev(*dev):
        return Volume()
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return parse(os.pread(descriptor, _SIZE, 0), layout)
    finally:
        os.close(descriptor)


def parse(data: bytes, layout: _Layout) -> Volume:
    """The names in the first bytes of a device; none if the magic number is not there."""
    if data[layout.magic_at : layout.magic_at + len(layout.magic)] != layout.magic:
        return Volume()
    uuid = data[layout.uuid_at : layout.uuid_at + 16]
    label = data[layout.label_at : layout.label_at + layout.label_size]
    if len(uuid) < 16:
        return Volume()
    if layout.encoding:
        text = label.decode(layout.encoding, errors="replace").split("\0", 1)[0]
    else:
        text = os.fsdecode(label.split(b"\0", 1)[0])
    return Volume(str(UUID(bytes=uuid)), text)
