"""Scratch file systems whose whole device can be made to fail, through device-mapper.

A loop device that is cut fails only beyond the cut; here the metadata and the journal
fail too. Stock kernels have device-mapper; some small ones have not.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf_compare.faults.fault import Expected, TriggerProcess, fill_directory, run_child
from fserr_bpf_compare.faults.scratch import Scratch, run
from fserr_bpf_compare.signals_blocked import signals_blocked

_CONTROL = "/dev/mapper/control"
_SECTOR = 512  # bytes, in tables


def unavailable() -> str:
    """Why device-mapper cannot be used here, after an attempt to load it; "" if it can.

    It is opened: a container or an older boot may have left a node without a driver.
    """
    if not os.path.exists(_CONTROL):
        subprocess.run(["modprobe", "--quiet", "dm-mod"], check=False)
    try:
        os.close(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"this kernel has no device-mapper ({_CONTROL}: {error.strerror})"
    return ""


class Mapper:
    """A device that is the same as the one below it, or fails some or all requests."""

    def __init__(self, below: str) -> None:
        self._name = f"fserr-{os.path.basename(below)}"
        self._below = below
        self._sectors = int(run("blockdev", "--getsz", below))
        self._working = f"0 {self._sectors} linear {below} 0"
        run("dmsetup", "create", "--noudevsync", self._name, "--table", self._working)
        fields = ("info", "-c", "--noheadings", "-o", "minor", self._name)
        self.device = f"/dev/dm-{run('dmsetup', *fields).strip()}"

    def fail(self) -> None:
        """From now on every request ends with EIO."""
        self._load(f"0 {self._sectors} error")

    def fail_range(self, offset: int, length: int) -> None:
        """From now on requests for these bytes, which are whole sectors of 512, end with EIO.

        There have to be others in front of and behind them.
        """
        first, count = offset // _SECTOR, length // _SECTOR
        behind = first + count
        self._load(
            f"0 {first} linear {self._below} 0\n"
            f"{first} {count} error\n"
            f"{behind} {self._sectors - behind} linear {self._below} {behind}"
        )

    def stall(self) -> None:
        """From now on every request waits, until `heal`."""
        run("dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", self._name)

    def heal(self) -> None:
        """Requests reach the device below again."""
        self._load(self._working)

    def remove(self) -> None:
        """Take the device away; nothing may be mounted from it."""
        run("dmsetup", "remove", "--noudevsync", "--retry", self._name)

    def _load(self, table: str) -> None:
        run("dmsetup", "load", self._name, "--table", table)
        # With a flush or a frozen file system there would be nothing left to fail.
        run("dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", self._name)
        run("dmsetup", "resume", "--noudevsync", self._name)


@contextmanager
def mapped(fs: Scratch) -> Iterator[Mapper]:
    """Mount ``fs`` through a `Mapper`, with nothing cached, until the end of the block.

    Afterwards ``fs`` is unmounted. Raises LabError when a tool fails.
    """
    below = fs.device
    fs.unmount()
    mapper = Mapper(below)
    try:
        fs.device = mapper.device
        fs.mount()
        try:
            yield mapper
        finally:
            with signals_blocked():
                mapper.heal()
                fs.unmount()
    finally:
        fs.device = below
        with signals_blocked():
            mapper.remove()


@dataclass(frozen=True)
class DeviceFault:
    """What an operation on a failing device meets; see `fserr_bpf_compare.faults.fault.Fault`.

    ``warm`` is a shell command that caches what must not fail, ``command`` the one that
    fails; both have the mount point as ``$0``.  ``proposed`` and ``fserror`` hold errors
    that must be in the streams of that name, which may have more: a journal that was
    aborted is met again and again.
    """

    name: str
    fstype: str
    summary: str
    warm: str
    command: str
    proposed: frozenset[Expected] = frozenset()
    fserror: frozenset[Expected] = frozenset()

    def prepare(self, fs: Scratch) -> None:
        """Give the operation something to work on."""
        fill_directory(fs, 40)
        (fs.mount_point / "victim").write_bytes(b"x" * 65536)

    def cause(self, fs: Scratch, mapper: Mapper) -> TriggerProcess:
        """Fail the device and run the operation."""
        path = str(fs.mount_point)
        if self.fstype == "ext4":
            # The block bitmaps, which a thread of the kernel would read at some time.
            Path(f"/proc/fs/ext4/{fs.device_name}/mb_groups").read_bytes()
        run("sh", "-c", self.warm, path)
        mapper.fail()
        return run_child("sh", "-c", self.command, path, path=path)


_INODE = Expected(errno.EIO, "inode")
_SUPERBLOCK = Expected(errno.EIO, "sb")
_END = Expected(errno.ESHUTDOWN, "sb")

DEVICE_FAULTS = (
    DeviceFault(
        name="ext4_device_lookup",
        fstype="ext4",
        summary="opens a file in a directory that cannot be read",
        warm=":",
        command='exec cat "$0/victim"',
        proposed=frozenset({_INODE}),
        fserror=frozenset({_INODE}),
    ),
    DeviceFault(
        name="ext4_device_mkdir",
        fstype="ext4",
        summary="makes a directory: bitmaps of inodes cannot be read",
        warm='ls "$0/dir"',
        command='mkdir "$0/dir/new"',
        proposed=frozenset({_SUPERBLOCK}),
        fserror=frozenset({_SUPERBLOCK}),
    ),
    DeviceFault(
        name="ext4_device_writeback",
        fstype="ext4",
        summary="writes data back",
        warm='cat "$0/victim"',
        command='exec dd if=/dev/zero of="$0/victim" bs=64k count=1 conv=notrunc,fsync',
        proposed=frozenset({_INODE}),
    ),
    DeviceFault(
        name="ext4_device_journal",
        fstype="ext4",
        summary="changes an inode after its journal was aborted",
        warm='touch "$0/victim"',
        command='touch "$0/victim"; sync "$0/victim"; touch "$0/victim"',
        proposed=frozenset({_SUPERBLOCK, _END}),
        fserror=frozenset({_SUPERBLOCK}),
    ),
    DeviceFault(
        name="xfs_device_inode",
        fstype="xfs",
        summary="looks at a file whose inode cannot be read",
        warm=":",
        command='exec ls "$0/dir"',
        proposed=frozenset({_SUPERBLOCK}),
    ),
    DeviceFault(
        name="xfs_device_log",
        fstype="xfs",
        # No kernel reports a shutdown by the log, 7.x neither: see xlog_force_shutdown().
        summary="syncs a changed inode: the log cannot be written, XFS shuts down",
        warm='touch "$0/old"',
        command='touch "$0/old"; exec sync "$0/old"',
        proposed=frozenset({_END}),
    ),
)
