"""Names of error numbers as the kernel's file systems use them."""

from __future__ import annotations

from errno import errorcode

# fs/ext4/ext4.h, fs/xfs/xfs_linux.h: file systems' names for EUCLEAN and EBADMSG
_FILE_SYSTEM_NAMES = {117: "EFSCORRUPTED", 74: "EFSBADCRC"}
_NAMES = {**errorcode, **_FILE_SYSTEM_NAMES}


def errno_name(error: int) -> str:
    """Return the name of ``error`` of either sign, or its digits if it has none."""
    number = abs(error)
    return _NAMES.get(number, str(number))
