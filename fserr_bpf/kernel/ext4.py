"""What the running kernel's ext4 tells by itself."""

from __future__ import annotations

from functools import cache

# kernel 6.15..: the flag, and with it the mount options emergency_ro and shutdown,
# ext4_show_options() in fs/ext4/super.c
_FLAG = b"\0EXT4_FLAGS_EMERGENCY_RO\0"
_BTF = ("/sys/kernel/btf/ext4", "/sys/kernel/btf/vmlinux")


@cache
def options_tell() -> bool:
    """Whether mount options say that a file system has been shut down or has made itself read-only.

    Asked of the types of the module, or of the kernel where it is built in. Where there are none
    it is not known, and the answer is no.
    """
    for path in _BTF:
        try:
            with open(path, "rb") as file:
                return _FLAG in file.read()
        except OSError:
            continue
    return False
