"""The device number of a superblock, ``super_block.s_dev``."""

from __future__ import annotations

from typing import NamedTuple

_MINOR_BITS = 20  # MINORBITS of include/linux/kdev_t.h


class Dev(NamedTuple):
    """``s_dev`` as mountinfo writes it; on btrfs it is not the ``st_dev`` of files."""

    major: int
    minor: int

    @classmethod
    def of(cls, number: int) -> Dev:
        """From the kernel's own ``dev_t``, which records carry."""
        return cls(number >> _MINOR_BITS, number & (1 << _MINOR_BITS) - 1)

    @property
    def number(self) -> int:
        """The kernel's own ``dev_t``: ``MKDEV(major, minor)``."""
        return self.major << _MINOR_BITS | self.minor

    def __str__(self) -> str:
        return f"{self.major}:{self.minor}"
