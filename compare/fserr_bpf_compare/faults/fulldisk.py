"""Scratch file systems on a full disk: their data was accepted and cannot be stored any more.

The loop device passes the error of its backing file on, as a device with thin provisioning
does: ENOSPC, up to 6.1 made EIO (``lo_complete_rq()``).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf_compare.faults.cutting import PAYLOAD
from fserr_bpf_compare.faults.extents import first_physical
from fserr_bpf_compare.faults.scratch import Scratch, run
from fserr_bpf_compare.signals_blocked import signals_blocked

_ROOM = 400 << 20  # bytes, for the image of one file system
NO_SPACE = "critical space allocation error, dev {dev},"  # blk_print_req_error()


@contextmanager
def small_disk() -> Iterator[None]:
    """A tmpfs for the images of the scratch file systems that are made until the end of the block.

    Raises LabError when a tool fails.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="fserr-disk-") as directory:
        run("mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "fserr-disk", directory)
        tempfile.tempdir = directory
        try:
            yield
        finally:
            tempfile.tempdir = before
            with signals_blocked():
                run("umount", directory)


@contextmanager
def full(fs: Scratch, path: str) -> Iterator[None]:
    """Until the end of the block there is no room for the data of ``path``, but for all else.

    ``fs`` is on a `small_disk`.  What the data was reads as zeros.
    """
    disk = fs.directory.parent
    hole = first_physical(Path(path))
    with fs.image.open("r+b") as image:
        os.posix_fallocate(image.fileno(), 0, fs.size)
    run(
        *("fallocate", "--punch-hole", "--offset", str(hole), "--length", str(PAYLOAD)),
        str(fs.image),
    )
    usage = os.statvfs(disk)
    _resize(disk, (usage.f_blocks - usage.f_bfree) * usage.f_bsize)
    try:
        yield
    finally:
        _resize(disk, _ROOM)


def _resize(disk: Path, size: int) -> None:
    run("mount", "-o", f"remount,size={size}", str(disk))
