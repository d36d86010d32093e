"""Files whose data lies behind everything else of a device, and the device cut in front of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf_compare.faults.extents import first_physical
from fserr_bpf_compare.faults.scratch import Scratch

PAYLOAD = 64 << 10  # bytes in each file
# What puts data behind metadata: the journal in front of ext4's, and for btrfs a first
# chunk of data behind those of metadata, with logical addresses like the device's. In
# whole pages: of a write that fails in the middle, a loop device says that all is written.
MKFS_OPTIONS = {
    "ext4": ("-b", "4096", "-E", "packed_meta_blocks=1"),
    "xfs": (),
    "btrfs": ("-m", "single"),
}
# btrfs would write the new data elsewhere.
MOUNT_OPTIONS = {"ext4": None, "xfs": None, "btrfs": ("nodatacow",)}
# The block layer says it ten times in five seconds, whatever the device. XFS says it without
# an end of line, and the kernel waits for more until there is another message.
_BEYOND_END = r"attempt to access beyond end of device\\x0a{dev}: "
WRITEBACK_LOG = {
    "ext4": r"EXT4-fs warning \(device {dev}\): ext4_end_bio:\d+: I/O error",
    "xfs": rf"{{dev}}: writeback error on inode|{_BEYOND_END}",
    "btrfs": r"BTRFS error \(device {dev}.*\): bdev .* errs: wr [1-9]",
}


def write_victims(fs: Scratch) -> None:
    """Write the files, and forget their data."""
    # ext4 and XFS spread directories over their groups. The last group's metadata and
    # the log lie in front of the last group's data.
    for index in range(8):
        directory = fs.mount_point / f"group{index}"
        directory.mkdir()
        (directory / "victim").write_bytes(b"x" * PAYLOAD)
    fs.remount_fresh()


def last_victim(fs: Scratch) -> str:
    """The path of the file whose data comes last on the device."""
    return max(
        (str(path) for path in fs.mount_point.glob("group*/victim")),
        key=lambda path: first_physical(Path(path)),
    )


@contextmanager
def cut(fs: Scratch, path: str) -> Iterator[None]:
    """Until the end of the block the device ends in front of the data of ``path``."""
    fs.shrink_device(first_physical(Path(path)))
    try:
        yield
    finally:
        fs.restore_device()
