"""Which file systems are worth a mark when nobody names any: those that can be heard."""

from __future__ import annotations

from collections.abc import Iterable

from fserr_bpf.kernel.mounts import READ_ONLY_TYPES, Mount, MountTable, preferred_mounts

# its superblocks have numbers of their own, all others on a disk that of their device
_ANONYMOUS = ("btrfs",)
# they hold files and report to nobody
_SILENT = (*READ_ONLY_TYPES, "tmpfs")
# a process serves it, and may never answer
_SERVED = ("fuseblk",)


def followed_mounts(table: Iterable[Mount]) -> MountTable:
    """Of each file system on a disk that may be written to, where to look at it."""
    return tuple(mount for mount in preferred_mounts(table).values() if _is_followed(mount))


def silent_types(table: Iterable[Mount]) -> tuple[str, ...]:
    """The types in ``table`` of which nothing can be heard."""
    return tuple(sorted({mount.fstype for mount in table} & {*_SILENT, *_SERVED}))


def _is_followed(mount: Mount) -> bool:
    on_disk = mount.dev.major != 0 or mount.fstype in _ANONYMOUS
    return on_disk and mount.fstype not in (*_SILENT, *_SERVED)
