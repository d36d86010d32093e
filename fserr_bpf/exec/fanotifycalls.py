"""The two system calls that are taken over, as values and in words."""

from __future__ import annotations

from typing import NamedTuple

from fserr_bpf.tasks.filter import Rule
from fserr_bpf.uapi import fanotify
from fserr_bpf.uapi.fcntl import AT_FDCWD
from fserr_bpf.uapi.proposed import PROPOSED_FLAGS
from fserr_bpf.uapi.seccomp import NR_FANOTIFY_INIT, NR_FANOTIFY_MARK

_FLAGS, _MASK = 0, 2  # which argument of fanotify_init(2), and of fanotify_mark(2)
_PERMISSIONS = fanotify.FAN_OPEN_PERM | fanotify.FAN_ACCESS_PERM | fanotify.FAN_OPEN_EXEC_PERM

STOPPED = (
    Rule(NR_FANOTIFY_INIT, _FLAGS, stops=PROPOSED_FLAGS, otherwise=False),
    Rule(NR_FANOTIFY_MARK, _MASK, stops=fanotify.FAN_FS_ERROR, passes=_PERMISSIONS),
)
"""What the supervisor is asked about.

A group is the kernel's own until it is marked for FAN_FS_ERROR. After that each mark matters, and
the filter cannot tell which group a mark is for; but groups with errors refuse permission events,
whoever is asked.
"""

_INT = 1 << 32

_INIT_WORDS = (
    "FAN_CLOEXEC",
    "FAN_NONBLOCK",
    "FAN_CLASS_CONTENT",
    "FAN_CLASS_PRE_CONTENT",
    "FAN_UNLIMITED_QUEUE",
    "FAN_UNLIMITED_MARKS",
    "FAN_ENABLE_AUDIT",
    "FAN_REPORT_PIDFD",
    "FAN_REPORT_TID",
    "FAN_REPORT_FID",
    "FAN_REPORT_DIR_FID",
    "FAN_REPORT_NAME",
    "FAN_REPORT_TARGET_FID",
    "FAN_REPORT_FD_ERROR",
)
_MARK_WORDS = (
    "FAN_MARK_ADD",
    "FAN_MARK_REMOVE",
    "FAN_MARK_FLUSH",
    "FAN_MARK_DONT_FOLLOW",
    "FAN_MARK_ONLYDIR",
    "FAN_MARK_MOUNT",
    "FAN_MARK_FILESYSTEM",
    "FAN_MARK_IGNORED_MASK",
    "FAN_MARK_IGNORED_SURV_MODIFY",
    "FAN_MARK_EVICTABLE",
    "FAN_MARK_IGNORE",
)
_MARK_TYPE = fanotify.FAN_MARK_MOUNT | fanotify.FAN_MARK_FILESYSTEM
_IGNORING = fanotify.FAN_MARK_IGNORED_MASK | fanotify.FAN_MARK_IGNORE
_LOOKUP = fanotify.FAN_MARK_DONT_FOLLOW | fanotify.FAN_MARK_ONLYDIR
_MASK_WORDS = ("FAN_FS_ERROR", "FAN_ONDIR", "FAN_EVENT_ON_CHILD")


class InitCall(NamedTuple):
    """``fanotify_init(flags, event_flags)``: unsigned 32 bits each."""

    flags: int
    event_flags: int

    @classmethod
    def of(cls, args: tuple[int, ...]) -> InitCall:
        """From the six registers."""
        return cls(args[0] % _INT, args[1] % _INT)

    def __str__(self) -> str:
        return f"fanotify_init({_words(self.flags, _INIT_WORDS)}, {self.event_flags:#o})"


class MarkCall(NamedTuple):
    """``fanotify_mark(group, flags, mask, dirfd, path)``; ``path`` is an address, 0 for NULL.

    ``name`` is what is there, once it has been read. The rest is what flags and mask say,
    decoded once: whether all marks of one type are to go (``flushes``), whether bits are to be
    taken away (``removes``), whether it is about the mark's ignore mask (``ignores``) and about
    FAN_FS_ERROR (``errors``); the flags for what is marked (``kind``) and for how the path is
    resolved (``lookup``); whether the mark is that of a file system (``whole``) or of an inode
    (``of_inode``).
    """

    group: int
    flags: int
    mask: int
    dirfd: int
    path: int
    flushes: bool
    removes: bool
    ignores: bool
    errors: bool
    kind: int
    lookup: int
    whole: bool
    of_inode: bool
    name: bytes | None = None

    @classmethod
    def of(cls, args: tuple[int, ...]) -> MarkCall:
        """From the six registers."""
        flags, mask = args[1] % _INT, args[2]
        kind = flags & _MARK_TYPE
        return cls(
            _signed(args[0]),
            flags,
            mask,
            _signed(args[3]),
            args[4],
            flushes=bool(flags & fanotify.FAN_MARK_FLUSH),
            removes=bool(flags & fanotify.FAN_MARK_REMOVE),
            ignores=bool(flags & _IGNORING),
            errors=bool(mask & fanotify.FAN_FS_ERROR),
            kind=kind,
            lookup=flags & _LOOKUP,
            whole=kind == fanotify.FAN_MARK_FILESYSTEM,
            of_inode=kind == fanotify.FAN_MARK_INODE,
        )

    def __str__(self) -> str:
        where = "AT_FDCWD" if self.dirfd == AT_FDCWD else str(self.dirfd)
        flags, mask = _words(self.flags, _MARK_WORDS), _words(self.mask, _MASK_WORDS)
        path = f"{self.path:#x}" if self.name is None else repr(self.name)[1:]
        return f"fanotify_mark({self.group}, {flags}, {mask}, {where}, {path})"


def _signed(register: int) -> int:
    low = register % _INT
    return low - _INT if low >= _INT // 2 else low


def _words(bits: int, names: tuple[str, ...]) -> str:
    words = [name for name in names if bits & vars(fanotify)[name]]
    for name in words:
        bits &= ~vars(fanotify)[name]
    return "|".join([*words, *([f"{bits:#x}"] if bits or not words else [])])
