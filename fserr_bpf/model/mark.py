"""What a group watches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark with the mask FAN_FS_ERROR.

    ``path`` is any file or directory of the file system, as for fanotify_mark(2). The
    mark is of type FAN_MARK_FILESYSTEM, or with ``whole`` False of FAN_MARK_INODE, which
    is the proposal's.
    """

    path: str
    whole: bool = True

    @classmethod
    def filesystem(cls, path: str) -> Mark:
        """Mark the whole file system that ``path`` is on, through every mount of it."""
        return cls(path)

    @classmethod
    def inode(cls, path: str) -> Mark:
        """Mark the file or directory ``path`` alone: errors that name it, and no others."""
        return cls(path, whole=False)
