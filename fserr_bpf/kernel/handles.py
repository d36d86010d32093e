"""What identifies the file system of a path in fanotify events: fsid and handle form."""

from __future__ import annotations

import errno
from typing import NamedTuple

from fserr_bpf.errors import MarkError
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.kernel.mounts import Mount, mount_of
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.exportfs import (
    BTRFS_WITHOUT_PARENT,
    FILEID_BTRFS_WITHOUT_PARENT,
    FILEID_INO32_GEN,
    FILEID_INO64_GEN,
    INO32_GEN,
    INO64_GEN,
)
from fserr_bpf.uapi.fanotify import FAN_DELETE_SELF

# Any event that every kernel with FAN_REPORT_FID knows; FAN_FS_ERROR itself would
# fail on the kernels that we emulate it for.
_ANY_EVENT = FAN_DELETE_SELF

_FORMS = {
    FILEID_INO32_GEN: INO32_GEN,
    FILEID_INO64_GEN: INO64_GEN,
    FILEID_BTRFS_WITHOUT_PARENT: BTRFS_WITHOUT_PARENT,
}


class FilesystemIdentity(NamedTuple):
    """The file system behind a marked path.

    ``fsid`` is ``f_fsid`` of ``statfs(2)``: two unsigned 32-bit words. ``magic`` is
    its ``f_type``. ``form`` is the FILEID_* type of every handle of the file
    system, None if its layout is not known. ``dev`` is the superblock's device,
    which on btrfs is not the ``st_dev`` of its files.
    """

    path: str
    mount: Mount
    fsid: tuple[int, int]
    magic: int
    form: int | None

    @property
    def dev(self) -> Dev:
        """``super_block.s_dev`` as (major, minor)."""
        return self.mount.dev

    @property
    def fstype(self) -> str:
        """Name of the file system type, as in mountinfo."""
        return self.mount.fstype


def check_markable(path: str, *, whole: bool = True) -> None:
    """Let the kernel judge: set a mark for a moment, on a group of its own.

    On the file system of ``path``, or unless ``whole`` on its inode.

    Raises MarkError as ``fanotify_mark(2)`` would fail, PrivilegeError without
    CAP_SYS_ADMIN.
    """
    with FanotifyGroup() as group:
        (group.mark if whole else group.mark_inode)(path, _ANY_EVENT)


def identify(path: str) -> FilesystemIdentity:
    """Identify the file system of ``path``; needs no privilege but to reach the path.

    Raises MarkError when the path cannot be reached or the file system has no handles.
    """
    mount = mount_of(path)
    try:
        statfs = syscalls.statfs(path)
        form = form_of(syscalls.name_to_handle_at(path), _ino_of(path))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise MarkError(
                f"{path}: {mount.fstype} has no file handles",
                "check the kernel log for its errors",
            ) from error
        raise MarkError(f"{path}: {error.strerror}", "mark it while it is mounted") from error
    return FilesystemIdentity(path, mount, statfs.f_fsid, statfs.f_type, form)


def handle_of(path: str) -> tuple[int, bytes]:
    """Type and bytes of the handle of ``path``; MarkError if it cannot be had."""
    try:
        handle = syscalls.name_to_handle_at(path)
    except OSError as error:
        raise MarkError(f"{path}: {error.strerror}", "mark it while it is mounted") from error
    return handle.handle_type, handle.f_handle


def _ino_of(path: str) -> int | None:
    """None on a file system that has been shut down, which may still be marked."""
    try:
        return syscalls.statx(path).ino
    except OSError as error:
        if error.errno not in (errno.EIO, errno.ESHUTDOWN):
            raise
        return None


def form_of(handle: syscalls.NameToHandle, ino: int | None) -> int | None:
    """The type of ``handle``, of inode ``ino``, if we could have built that handle.

    Where ``ino`` is not known, the layout alone has to do.

    Types alone do not tell: FUSE stores another number order under 0x81, tmpfs
    twelve bytes under 0x01.
    """
    layout = _FORMS.get(handle.handle_type)
    if layout is None or layout.size != len(handle.f_handle):
        return None
    known = ino is None or layout.unpack(handle.f_handle)[0] == ino
    return handle.handle_type if known else None
