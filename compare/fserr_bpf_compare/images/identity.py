"""A UUID for an ext image that has none: without it there is no fsid, and nothing can be marked.

Old ones have none. It can be written where no checksum covers it: ``fs/ext4/ext4.h``, struct
ext4_super_block.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct

_SUPERBLOCK = 1024  # bytes from the start
_MAGIC, _RO_COMPAT, _UUID = 0x38, 0x64, 0x68
_EXT_MAGIC = 0xEF53
# EXT4_FEATURE_RO_COMPAT_GDT_CSUM and _METADATA_CSUM: then the UUID is in checksums
_CHECKSUMS = 0x10 | 0x400
_SIZE = 16
_U16, _U32 = Struct("<H"), Struct("<I")
OURS = bytes.fromhex("5e44b9f000004000800066736572722e")


def give_uuid(image: Path) -> bool:
    """Write `OURS` into the ext file system in ``image`` if that has no UUID; whether it did.

    Raises OSError.
    """
    with image.open("r+b") as file:
        file.seek(_SUPERBLOCK)
        head = file.read(_UUID + _SIZE)
        if len(head) < _UUID + _SIZE or _U16.unpack_from(head, _MAGIC)[0] != _EXT_MAGIC:
            return False
        if any(head[_UUID:]) or _U32.unpack_from(head, _RO_COMPAT)[0] & _CHECKSUMS:
            return False
        file.seek(_SUPERBLOCK + _UUID)
        file.write(OURS)
    return True
