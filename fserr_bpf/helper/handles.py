"""From a file handle to its object, and from a path back to the handle."""

from __future__ import annotations

import os
from collections.abc import Container

from fserr_bpf.kernel import syscalls
from fserr_bpf.model.event import FileHandle

DELETED = " (deleted)"
"""How the kernel's path of an object without a name ends."""


def open_object(mount_point: str, handle: FileHandle) -> int:
    """An O_PATH descriptor of the object of ``handle``; needs CAP_DAC_READ_SEARCH.

    ``mount_point`` shows its file system. Raises OSError, ESTALE if there is no such object.
    """
    # a directory, not O_PATH: open_by_handle_at(2) does not take that
    root = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.open_by_handle_at(root, handle.handle_type, handle.f_handle)
    finally:
        os.close(root)


def leads_to(path: str, handle: FileHandle, mounts: Container[int]) -> bool:
    """Whether ``path`` is the object of ``handle``, on one of the mounts with these ids."""
    try:
        found = syscalls.name_to_handle_at(path, follow=False)
    except OSError:  # renamed, unlinked, or hidden by another mount
        return False
    return found.mount_id in mounts and (found.handle_type, found.f_handle) == handle
