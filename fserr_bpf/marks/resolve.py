"""Marks to the file systems and objects that they are about."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from fserr_bpf.codec.handles import inode_of
from fserr_bpf.errors import MarkError
from fserr_bpf.kernel.handles import FilesystemIdentity, check_markable, handle_of, identify
from fserr_bpf.kernel.mounts import Mount, mount_of, process_of
from fserr_bpf.marks.overlayfs import layers_in, objects_in
from fserr_bpf.marks.rules import MountId, Part
from fserr_bpf.model.event import FileHandle
from fserr_bpf.model.mark import Mark, MarkKind
from fserr_bpf.uapi.inode import InodeId

_OVERLAY = "overlay"


class Resolved(NamedTuple):
    """A mark on one file system; ``path`` is on it. ``part`` is None for all of it.

    ``note`` says in words what it will not hear.
    """

    path: str
    identity: FilesystemIdentity
    part: Part | None
    note: str = ""


def resolve(mark: Mark, now_ns: int) -> Iterator[Resolved]:
    """The mark on each file system that it is about: an overlay's layers may be of several.

    ``now_ns`` is CLOCK_MONOTONIC. Raises MarkError for a path that cannot be marked.
    """
    if mark.whole:
        check_markable(mark.path)
        yield Resolved(mark.path, identify(mark.path), None)
        return
    mount = mount_of(mark.path)
    end = None
    if mark.kind is MarkKind.MOUNT:
        end = MountId(mount.mount_id, mount.dev, process_of(mount.mount_point))
    if mount.fstype == _OVERLAY:
        layers = layers_in(mount.super_options)
        found = objects_in(layers, _relative(mark, mount), mark.path)
        above = layers.upper and not f"{found[0]}/".startswith(f"{layers.upper}/")
        note = (
            f"{mark.path}: what is copied up later is not heard; mark again then" if above else ""
        )
        for path in found:
            yield _part(mark, path, end, now_ns, everything=False)._replace(note=note)
            note = ""
        return
    path = mark.path
    if mark.kind is MarkKind.MOUNT:
        path = mount.mount_point
        if mount_of(path) != mount:
            raise MarkError(
                f"{mark.path}: another mount hides {path}",
                f"mark the directory that shows there as subtree:{mark.path}",
            )
    yield _part(mark, path, end, now_ns, everything=_is_top(path, mount))


def _part(mark: Mark, path: str, end: MountId | None, now_ns: int, *, everything: bool) -> Resolved:
    try:
        check_markable(path, whole=False)
    except MarkError as error:
        # up to 6.7 of subvolumes, which nothing but a mark of the kernel's minds
        cause = error.__cause__
        subvolume = isinstance(cause, OSError) and cause.errno == errno.EXDEV
        if mark.kind is MarkKind.INODE or not subvolume:
            raise
    root = inode_at(path)
    return Resolved(path, identify(path), Part(mark.kind, mark.path, root, now_ns, everything, end))


def _is_top(path: str, mount: Mount) -> bool:
    """Whether ``path`` is the root of its file system; False also where that is unknown."""
    try:
        shows = mount_of(mount.mount_point) == mount
    except MarkError:
        return False
    return mount.root == "/" and shows and inode_at(path) == inode_at(mount.mount_point)


def _relative(mark: Mark, mount: Mount) -> str:
    """The marked object's path from the root of its overlay."""
    if mark.kind is MarkKind.MOUNT:
        return mount.root.strip("/")
    process = process_of(mark.path)
    top = mount.mount_point.removeprefix(f"/proc/{process}/root") or "/"
    # not realpath(3), which would follow /proc/PID/root to our own root
    descriptor = os.open(mark.path, os.O_PATH | os.O_CLOEXEC)
    try:
        inside = os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return os.path.normpath(os.path.join(mount.root, os.path.relpath(inside, top))).strip("/")


def inode_at(path: str) -> InodeId:
    """What its handle says of ``path``; MarkError if handles of the file system are not known."""
    inode = inode_of(FileHandle(*handle_of(path)))
    if inode is None:
        raise MarkError(f"{path}: handles of this file system are not known", "mark all of it")
    return inode.narrow
