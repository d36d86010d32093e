"""File handles: ``struct file_handle`` of ``<fcntl.h>`` and ``enum fid_type``.

The types are those of ``include/linux/exportfs.h``; each layout is what the file
system puts into ``f_handle`` for that type, without a parent.
"""

from __future__ import annotations

from struct import Struct

# struct file_handle: handle_bytes, handle_type; handle_bytes bytes of f_handle follow
FILE_HANDLE = Struct("<Ii")
MAX_HANDLE_SZ = 128

FILEID_ROOT = 0x00
FILEID_INO32_GEN = 0x01
FILEID_BTRFS_WITHOUT_PARENT = 0x4D
FILEID_INO64_GEN = 0x81
FILEID_INVALID = 0xFF

# ino, generation (ext4, f2fs, XFS with inode32)
INO32_GEN = Struct("<II")
# ino, generation (XFS: struct xfs_fid64)
INO64_GEN = Struct("<QI")
# objectid, root objectid, generation (struct btrfs_fid up to parent_objectid)
BTRFS_WITHOUT_PARENT = Struct("<QQI")
