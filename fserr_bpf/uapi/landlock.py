"""Landlock, ``include/uapi/linux/landlock.h`` and the numbers of its system calls."""

from __future__ import annotations

from struct import Struct

NR_LANDLOCK_CREATE_RULESET = 444
NR_LANDLOCK_ADD_RULE = 445
NR_LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1

ACCESS_FS_WRITE_FILE = 1 << 1
ACCESS_FS_CHANGES = 0b1_1111_1111 << 4
"""REMOVE_DIR, REMOVE_FILE and all MAKE_*: what changes folders."""
ACCESS_FS_TRUNCATE = 1 << 14
"""Since ABI 3 (Linux 6.2)."""

RULESET_ATTR = Struct("=Q")  # struct landlock_ruleset_attr: handled_access_fs
PATH_BENEATH_ATTR = Struct("=Qi")  # struct landlock_path_beneath_attr, packed
