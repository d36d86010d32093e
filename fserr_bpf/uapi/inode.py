"""What identifies an inode within its file system."""

from __future__ import annotations

from typing import NamedTuple

_U32 = 0xFFFFFFFF


class InodeId(NamedTuple):
    """An inode as its file handle says it.

    ``subvolume`` is the objectid of its btrfs root, 64 bits, and 0 elsewhere. The folders
    above an inode (``struct fserr_ancestor``) have only its low half, see ``narrow``.
    """

    ino: int
    generation: int
    subvolume: int = 0

    @property
    def narrow(self) -> InodeId:
        """As the probes write the folders above an inode, to be compared with those."""
        return self._replace(subvolume=self.subvolume & _U32)
