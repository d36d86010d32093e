"""Asking a file system how it is, with questions that change nothing. Each may wait for a disk.

What each driver answers once it is dead, from its source:

* ext4: ``ext4_sync_file()`` begins with the question whether it was shut down (EIO) or has
  made itself read-only (EROFS). kernel 6.12..6.14: nothing else tells; later ones are not
  asked, since their mount options do. Of one that is well, ``ext4_fsync_journal()`` commits
  what waits in the journal, as it does every five seconds by itself, and writes nothing
  where nothing waits. kernel 6.1, of late: fsync does not tell either. It follows from the
  superblock, whose copy in the kernel's memory is what a read of the device finds: an error
  after the mount.
* XFS: ``xfs_vn_getattr()``, and so stat(2), gives EIO. What it knows to be damaged is in its
  geometry.
* btrfs: it is read-only after a fatal error. Then fsync fails, which it does not where
  somebody asked for read-only. The errors of its devices are counted.
* f2fs: ``f2fs_ioctl()`` begins with the question whether the checkpoint has been stopped.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

from fserr_bpf.kernel.mounts import mount_id_of
from fserr_bpf.model.state import DeviceErrors
from fserr_bpf.uapi import fsioctl

# struct ext4_super_block, at 1 KiB: s_mtime, s_magic, s_errors; EXT4_ERRORS_*
_EXT4_AT, _EXT4_SIZE = 1024, 1024
_S_MTIME, _S_MAGIC, _S_ERRORS = 0x2C, 0x38, 0x3C
_EXT4_MAGIC = 0xEF53


class Question(NamedTuple):
    """Who is asked: the file system of ``driver`` whose mount ``mount_id`` is at ``path``.

    ``read_only``: its superblock is. ``device``: where its superblock is to be read, or "".
    """

    driver: str
    path: str
    mount_id: int
    read_only: bool = False
    device: str = ""


class Answer(NamedTuple):
    """``error``: errno of the driver's question, 0 if it went well, None if there is none.

    ``refused`` is the errno with which it could not be asked at all. ``sick`` is XFS's mask,
    ``missing`` the numbers of devices that a btrfs lacks. ``mounted`` is when ext4 was mounted,
    in seconds since 1970 UTC, and ``policy`` what it does after an error by default
    (``EXT4_ERRORS_*``); both 0 where the superblock was not read.
    """

    error: int | None = None
    refused: int = 0
    sick: int = 0
    devices: tuple[DeviceErrors, ...] = ()
    missing: tuple[int, ...] = ()
    mounted: int = 0
    policy: int = 0


def ask(question: Question) -> Answer:
    """Ask it. May block for as long as its disk does."""
    try:
        place = os.open(question.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return Answer(refused=error.errno or errno.EIO)
    try:
        if mount_id_of(place) != question.mount_id:  # another was mounted over it meanwhile
            return Answer(refused=errno.ESTALE)
        return _ask(question, f"/proc/self/fd/{place}")
    finally:
        os.close(place)


def _ask(question: Question, place: str) -> Answer:
    driver = DRIVERS[question.driver]
    if question.driver == "xfs" and (dead := _errno_of(lambda: os.stat(place))):
        return Answer(error=dead)
    try:
        root = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return Answer(refused=error.errno)
        return Answer(error=error.errno)
    try:
        return driver(root, question)
    finally:
        os.close(root)


def _errno_of(do: Callable[[], object]) -> int:
    try:
        do()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _ext4(root: int, question: Question) -> Answer:
    answer = Answer(error=_errno_of(lambda: os.fdatasync(root)))
    if answer.error or not question.device:
        return answer
    try:
        descriptor = os.open(question.device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            superblock = os.pread(descriptor, _EXT4_SIZE, _EXT4_AT)
        finally:
            os.close(descriptor)
    except OSError:  # without the right to read it only less is known
        return answer
    if len(superblock) < _EXT4_SIZE:
        return answer
    (mounted,) = struct.unpack_from("<I", superblock, _S_MTIME)
    magic, policy = (struct.unpack_from("<H", superblock, at)[0] for at in (_S_MAGIC, _S_ERRORS))
    return answer._replace(mounted=mounted, policy=policy) if magic == _EXT4_MAGIC else answer


def _xfs(root: int, _question: Question) -> Answer:
    try:
        geometry = fcntl.ioctl(root, fsioctl.XFS_IOC_FSGEOMETRY, bytes(fsioctl.XFS_GEOMETRY_SIZE))
    except OSError as error:
        return Answer(error=error.errno)
    (sick,) = struct.unpack_from("<I", geometry, fsioctl.XFS_SICK_AT)
    return Answer(error=0, sick=sick)


def _f2fs(root: int, _question: Question) -> Answer:
    version = bytes(8)
    return Answer(error=_errno_of(lambda: fcntl.ioctl(root, fsioctl.FS_IOC_GETVERSION, version)))


def _btrfs(root: int, question: Question) -> Answer:
    # of one that is writable fsync would write
    error = _errno_of(lambda: os.fdatasync(root)) if question.read_only else 0
    devices: list[DeviceErrors] = []
    missing: list[int] = []
    try:
        info = fcntl.ioctl(root, fsioctl.BTRFS_IOC_FS_INFO, bytes(fsioctl.BTRFS_FS_INFO_SIZE))
    except OSError as failed:
        return Answer(error=error or failed.errno)
    last, number = fsioctl.BTRFS_FS_INFO.unpack_from(info)
    for devid in range(1, last + 1):
        if len(devices) + len(missing) == number:
            break
        _btrfs_device(root, devid, devices, missing)
    return Answer(error=error, devices=tuple(devices), missing=tuple(missing))


def _btrfs_device(root: int, devid: int, devices: list[DeviceErrors], missing: list[int]) -> None:
    asked = bytearray(fsioctl.BTRFS_DEV_INFO_SIZE)
    struct.pack_into("<Q", asked, 0, devid)
    counts = bytearray(fsioctl.BTRFS_DEV_STATS_SIZE)
    values = fsioctl.BTRFS_DEV_STAT_VALUES
    fsioctl.BTRFS_DEV_STATS.pack_into(counts, 0, devid, values, 0, *(0,) * values)
    try:
        fcntl.ioctl(root, fsioctl.BTRFS_IOC_DEV_INFO, asked)
        path = bytes(asked[fsioctl.BTRFS_DEV_INFO_PATH_AT :]).split(b"\0", 1)[0]
        if not path:
            missing.append(devid)
            return
        fcntl.ioctl(root, fsioctl.BTRFS_IOC_GET_DEV_STATS, counts)
    except OSError:  # numbers have gaps where devices were taken out
        return
    found = fsioctl.BTRFS_DEV_STATS.unpack_from(counts)[3:]
    devices.append(DeviceErrors(os.fsdecode(path), *found))


DRIVERS = {"ext4": _ext4, "xfs": _xfs, "btrfs": _btrfs, "f2fs": _f2fs}
