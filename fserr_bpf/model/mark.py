"""What a group watches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark of type FAN_MARK_FILESYSTEM with the mask FAN_FS_ERROR.

    ``path`` is any file or directory of the file system, as for fanotify_mark(2).
    """

    path: str

    @classmethod
    def filesystem(cls, path: str) -> Mark:
        """Mark the whole file system that ``path`` is on, through every mount of it."""
        return cls(path)
