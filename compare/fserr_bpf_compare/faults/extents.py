"""Where the data of a file lies on its device (``FS_IOC_FIEMAP``)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from struct import Struct

_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP_FLAG_SYNC = 1
# struct fiemap: start, length, flags, mapped extents, room for extents, reserved
_FIEMAP = Struct("=QQIIII")
# struct fiemap_extent, up to fe_length: logical, physical, length
_EXTENT = Struct("=QQQ40x")


def first_physical(file: Path) -> int:
    """Byte offset on the device of the first data of ``file``."""
    request = bytearray(_FIEMAP.size + _EXTENT.size)
    _FIEMAP.pack_into(request, 0, 0, 1 << 62, _FIEMAP_FLAG_SYNC, 0, 1, 0)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, request)
    finally:
        os.close(descriptor)
    if _FIEMAP.unpack_from(request)[3] == 0:
        raise ValueError(f"{file} has no data on the device")
    physical: int = _EXTENT.unpack_from(request, _FIEMAP.size)[1]
    return physical
