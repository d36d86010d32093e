"""What tells of a file system's state and never waits for a disk: mount options and sysfs.

Sources: ``fs/ext4/sysfs.c``, ``fs/f2fs/sysfs.c`` and ``fs/f2fs/f2fs.h`` for the flags.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from fserr_bpf.kernel.blockdev import EXT4_FOLDER, driver_of, is_there, sysfs_name
from fserr_bpf.model.state import RecordedError
from fserr_bpf.state.superblocks import Superblock
from fserr_bpf.uapi.errno import EFSBADCRC, EFSCORRUPTED

_EXT4_ERR = {
    2: errno.EIO,
    3: errno.ENOMEM,
    4: EFSBADCRC,
    5: EFSCORRUPTED,
    6: errno.ENOSPC,
    7: errno.ENOKEY,
    8: errno.EROFS,
    9: errno.EFBIG,
    10: errno.EEXIST,
    11: errno.ERANGE,
    12: errno.EOVERFLOW,
    13: errno.EBUSY,
    14: errno.ENOTDIR,
    15: errno.ENOTEMPTY,
    16: errno.ESHUTDOWN,
    17: errno.EFAULT,
}
_F2FS_FOLDER = "/sys/fs/f2fs"
_SBI_IS_SHUTDOWN = 1 << 6  # enum of sbi->s_flag in fs/f2fs/f2fs.h
_CP_ERROR_FLAG = 1 << 3  # include/linux/f2fs_fs.h


class Signs(NamedTuple):
    """Read at one moment; equal ones mean that there is no reason to ask again.

    ``driver`` is whose file system it is: ext4 mounts ext2 and ext3 too. ``options`` are the
    superblock's; ``writable_mount``: a mount of it is meant to be written to. ``removed``:
    its device is. ``errors``, ``first`` and ``last`` are ext4's records, ``stopped`` f2fs's
    stopped checkpoint, ``asked`` that somebody shut it down.
    """

    driver: str
    options: frozenset[str]
    writable_mount: bool
    hidden: bool
    removed: bool
    errors: int = 0
    first: RecordedError | None = None
    last: RecordedError | None = None
    stopped: bool = False
    asked: bool = False


def read_signs(superblock: Superblock) -> Signs:
    """What sysfs and the mount table say; what is not there is empty."""
    block = superblock.block
    name = sysfs_name(block) if block else ""
    signs = Signs(
        driver_of(superblock.fstype, superblock.dev),
        superblock.options,
        superblock.writable_mount,
        hidden=superblock.visible is None,
        removed=block is not None and not is_there(block),
    )
    if signs.driver == "ext4":
        folder = f"{EXT4_FOLDER}/{name}"
        errors = _number(f"{folder}/errors_count")
        if errors:
            first, last = _recorded(folder, "first"), _recorded(folder, "last")
            signs = signs._replace(errors=errors, first=first, last=last)
    elif signs.driver == "f2fs":
        folder = f"{_F2FS_FOLDER}/{name}/stat"
        signs = signs._replace(
            stopped=bool(_number(f"{folder}/cp_status", 16) & _CP_ERROR_FLAG),
            asked=bool(_number(f"{folder}/sb_status", 16) & _SBI_IS_SHUTDOWN),
        )
    return signs


def _recorded(folder: str, which: str) -> RecordedError:
    return RecordedError(
        time=_number(f"{folder}/{which}_error_time"),
        function=_text(f"{folder}/{which}_error_func"),
        line=_number(f"{folder}/{which}_error_line"),
        error=_ext4_errno(_number(f"{folder}/{which}_error_errcode")),
        ino=_number(f"{folder}/{which}_error_ino"),
        block=_number(f"{folder}/{which}_error_block"),
    )


def _ext4_errno(code: int) -> int:
    """Disks have codes that do not depend on a CPU: EXT4_ERR_* of fs/ext4/ext4.h."""
    return _EXT4_ERR.get(code, 0)


def _number(path: str, base: int = 10) -> int:
    try:
        return int(_text(path) or "0", base)
    except ValueError:
        return 0


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip().rstrip("\0")
    except OSError:
        return ""
