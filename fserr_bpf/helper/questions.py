"""What the helper process is asked, as both ends know it: ``docs/architecture.md`` says why."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.dev import Dev


class Kind(StrEnum):
    """What a question is about."""

    PATH = "path"
    """Of a file handle, see `paths`."""
    PLACE = "place"
    """Of a file handle, see `ancestors`."""
    CGROUP = "cgroup"
    """The path of a cgroup's id."""


def about(mount_point: str, dev: Dev, handle: FileHandle) -> dict[str, Any]:
    """The part of a question that says which object it is about.

    ``mount_point`` shows the file system of ``dev``, (major, minor) of its superblock.
    """
    return {
        "mount_point": mount_point,
        "dev": dev,
        "handle_type": handle.handle_type,
        "f_handle": handle.f_handle.hex(),
    }


def object_of(question: dict[str, Any]) -> tuple[str, Dev, FileHandle]:
    """The arguments that `about` was given."""
    major, minor = question["dev"]
    handle = FileHandle(question["handle_type"], bytes.fromhex(question["f_handle"]))
    return question["mount_point"], Dev(major, minor), handle
