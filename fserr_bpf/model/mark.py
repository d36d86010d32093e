"""What a group watches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fserr_bpf.errors import UsageError


class MarkKind(StrEnum):
    """How much of a file system a mark hears, see ``docs/marks.md``."""

    FILESYSTEM = "filesystem"
    MOUNT = "mount"
    INODE = "inode"
    SUBTREE = "subtree"


class SuperblockErrors(StrEnum):
    """Which marks hear the errors that no inode is known for."""

    FILESYSTEM = "filesystem"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark with the mask FAN_FS_ERROR.

    ``path`` is any file or directory, as for fanotify_mark(2). Upstream has marks of the
    kind FILESYSTEM, the proposal's stream those of the kind INODE too; MOUNT and SUBTREE
    are ours.
    """

    path: str
    kind: MarkKind = MarkKind.FILESYSTEM

    @property
    def whole(self) -> bool:
        """Whether it hears a whole file system."""
        return self.kind is MarkKind.FILESYSTEM

    @classmethod
    def filesystem(cls, path: str) -> Mark:
        """Mark the whole file system that ``path`` is on, through every mount of it."""
        return cls(path)

    @classmethod
    def mount(cls, path: str) -> Mark:
        """Mark what can be reached through the one mount that ``path`` is on."""
        return cls(path, MarkKind.MOUNT)

    @classmethod
    def inode(cls, path: str) -> Mark:
        """Mark the file or directory ``path`` alone: errors that name it, and no others."""
        return cls(path, MarkKind.INODE)

    @classmethod
    def subtree(cls, path: str) -> Mark:
        """Mark the directory ``path`` and all below it on its file system."""
        return cls(path, MarkKind.SUBTREE)


def mark_of(text: str) -> Mark:
    """The mark of ``KIND:PATH``; raises UsageError."""
    kind, _, path = text.partition(":")
    if kind not in list(MarkKind) or not path:
        raise UsageError(
            f"no mark: {text}", f"give {'|'.join(MarkKind)}:PATH, for example subtree:/var/lib"
        )
    return Mark(path, MarkKind(kind))
