"""The mount table: which file system a path is on, and where a device is visible.

Source: ``/proc/self/mountinfo``, written by ``show_mountinfo()`` in
``fs/proc_namespace.c``. Nothing here keeps a descriptor on a mounted file system,
which would make it busy for ``umount(8)``.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from fserr_bpf.closing import Closing
from fserr_bpf.errors import MarkError
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.environment import require_procfs
from fserr_bpf.uapi.dev import Dev

MOUNTINFO = "/proc/self/mountinfo"
READ_ONLY_TYPES = ("squashfs", "erofs", "iso9660", "cramfs", "romfs")
"""File systems that cannot be written to, whatever the mount says."""

_OTHER_ROOT = re.compile(r"/proc/(\d+)/(?:task/\d+/)?root(?=/|$)")
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_READ_SIZE = 1 << 16


class Mount(NamedTuple):
    """One line of mountinfo. ``major`` and ``minor`` are ``super_block.s_dev``.

    ``root`` is the directory of the file system that shows at ``mount_point``.
    ``options`` belong to the mount, ``super_options`` to the file system.
    """

    mount_id: int
    parent_id: int
    major: int
    minor: int
    root: str
    mount_point: str
    fstype: str
    source: str
    options: str
    super_options: str

    @property
    def dev(self) -> Dev:
        """The superblock's device."""
        return Dev(self.major, self.minor)


MountTable = tuple[Mount, ...]


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), field))


def _parse_line(line: bytes) -> Mount:
    # Optional fields (shared:1 ...) end at a lone "-".
    before, after = line.split(b" - ", 1)
    mount_id, parent_id, device, root, mount_point, options = before.split(b" ")[:6]
    fstype, source, super_options = after.split(b" ", 2)
    major, minor = device.split(b":")
    return Mount(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        major=int(major),
        minor=int(minor),
        root=_unescape(root),
        mount_point=_unescape(mount_point),
        fstype=_unescape(fstype),
        source=_unescape(source),
        options=_unescape(options),
        super_options=_unescape(super_options),
    )


def parse_mountinfo(text: bytes) -> MountTable:
    """The mounts of a mountinfo file, in its order, octal escapes decoded."""
    return tuple(_parse_line(line) for line in text.splitlines())


def read_mounts() -> MountTable:
    """The mount table of this process, now. Raises KernelError without procfs."""
    try:
        with open(MOUNTINFO, "rb") as file:
            return parse_mountinfo(file.read())
    except FileNotFoundError:
        require_procfs()
        raise


def mount_of(path: str) -> Mount:
    """The mount that ``path`` resolves to.

    That of a path through ``/proc/PID/root`` is in the table of the process PID; its
    mount point begins with ``/proc/PID/root`` too. Raises MarkError when the path cannot
    be reached, or when its mount is in neither table.
    """
    try:
        mount_id = _mount_id(path)
    except OSError as error:
        remedy = "give a path that exists"
        if error.errno in (errno.EIO, errno.ESHUTDOWN):
            remedy = "its file system may be shut down, see fserr-bpf status"
        raise MarkError(f"{path}: {error.strerror}", remedy) from error
    process = process_of(path)
    for mount in (*read_mounts(), *(read_mounts_of(process) if process else ())):
        if mount.mount_id == mount_id:
            return mount
    raise MarkError(
        f"{path}: its mount is not in this mount namespace",
        "run inside that namespace, or give /proc/PID/root/PATH with a process of it",
    )


def _mount_id(path: str) -> int:
    """Also of a mount point whose file system has been shut down, as statx(2) of XFS fails then."""
    try:
        return syscalls.statx(path).mount_id
    except OSError as error:
        if error.errno not in (errno.EIO, errno.ESHUTDOWN):
            raise
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return mount_id_of(descriptor)
    finally:
        os.close(descriptor)


def mount_id_of(descriptor: int) -> int:
    """The mount that ``descriptor`` was opened through; asks no file system."""
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))


def process_of(path: str) -> int:
    """The PID of a path through ``/proc/PID/root``, 0 for any other."""
    found = _OTHER_ROOT.match(os.path.normpath(path))
    return int(found[1]) if found else 0


def read_mounts_of(process: int) -> MountTable:
    """The mount table of another process, mount points by their paths from here.

    None of it when the process has gone. Raises PermissionError without CAP_SYS_PTRACE
    for who has fewer rights than the process.
    """
    try:
        with open(f"/proc/{process}/mountinfo", "rb") as file:
            table = parse_mountinfo(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return ()
    except OSError as error:
        if error.errno == errno.EINVAL:  # a zombie, fs/proc_namespace.c
            return ()
        raise
    root = f"/proc/{process}/root"
    return tuple(m._replace(mount_point=(root + m.mount_point).rstrip("/")) for m in table)


def preferred_mounts(table: Iterable[Mount]) -> dict[Dev, Mount]:
    """Where to look at each device: its first mount that is visible and whole.

    A mount whose root is not "/" (bind mount, btrfs subvolume) or which another
    mount hides is taken only when the device has nothing better.
    """
    mounts = tuple(table)
    hidden = hidden_ids(mounts)
    best: dict[Dev, Mount] = {}
    rank: dict[Dev, tuple[bool, bool]] = {}
    for mount in mounts:
        mine = (mount.mount_id in hidden, mount.root != "/")
        if mount.dev not in best or mine < rank[mount.dev]:
            best[mount.dev], rank[mount.dev] = mount, mine
    return best


def hidden_ids(mounts: MountTable) -> frozenset[int]:
    """Ids of the mounts that their own mount point does not lead to."""
    by_id = {mount.mount_id: mount for mount in mounts}
    children: dict[int, list[Mount]] = {}
    for mount in mounts:
        if mount.parent_id != mount.mount_id:
            children.setdefault(mount.parent_id, []).append(mount)

    def cut_off(mount: Mount) -> bool:
        """A later mount covers a directory on the way to the mount point."""
        while True:
            on_the_way = (
                other.mount_point.rstrip("/") + "/" for other in children.get(mount.parent_id, ())
            )
            if any(
                mount.mount_point.startswith(prefix) and mount.mount_point != prefix
                for prefix in on_the_way
            ):
                return True
            parent = by_id.get(mount.parent_id)
            if parent is None or parent is mount:
                return False
            mount = parent

    return frozenset(
        mount.mount_id
        for mount in mounts
        if any(child.mount_point == mount.mount_point for child in children.get(mount.mount_id, ()))
        or cut_off(mount)
    )


class MountWatch(Closing):
    """Tells when the mount table changes: poll `fileno` for EPOLLPRI | EPOLLERR.

    The poll itself takes the notice (``mounts_poll()`` in
    ``fs/proc_namespace.c``), so call `changed` after every wake-up.
    """

    def __init__(self) -> None:
        self._fd = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._fd

    def changed(self) -> MountTable:
        """The mount table as it is now."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        chunks = []
        while chunk := os.read(self._fd, _READ_SIZE):
            chunks.append(chunk)
        return parse_mountinfo(b"".join(chunks))
