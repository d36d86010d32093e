"""The file systems' own names of error numbers: ``fs/ext4/ext4.h``, ``fs/xfs/xfs_linux.h``."""

from __future__ import annotations

from errno import EBADMSG, EUCLEAN

EFSCORRUPTED = EUCLEAN
EFSBADCRC = EBADMSG
