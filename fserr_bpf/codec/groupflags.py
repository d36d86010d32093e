"""What the flags of fanotify_init(2) change in FAN_FS_ERROR events."""

from __future__ import annotations

import errno
from typing import NamedTuple

from fserr_bpf.errors import UsageError
from fserr_bpf.uapi.fanotify import (
    FAN_EPIDFD,
    FAN_NOFD,
    FAN_NOPIDFD,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FD_ERROR,
    FAN_REPORT_FID,
    FAN_REPORT_NAME,
    FAN_REPORT_PIDFD,
    FAN_REPORT_TARGET_FID,
    FAN_REPORT_TID,
)
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION

# FAN_FS_ERROR names no directory: these are accepted and change nothing.
_WITHOUT_EFFECT = FAN_REPORT_FID | FAN_REPORT_DIR_FID | FAN_REPORT_NAME | FAN_REPORT_TARGET_FID


class GroupFlags(NamedTuple):
    """``thread``: pid is the thread's number, and only reports of one thread merge.

    ``pidfd``: events have a record PIDFD. ``numbers``: fd and pidfd carry a negative
    errno instead of FAN_NOFD, FAN_NOPIDFD and FAN_EPIDFD (``copy_event_to_user()``).
    ``detail`` and ``location``: the records of the proposal; with either of them only
    reports of one kind and failaddr merge.
    """

    thread: bool = False
    pidfd: bool = False
    numbers: bool = False
    detail: bool = False
    location: bool = False

    @classmethod
    def of(cls, flags: int) -> GroupFlags:
        """As ``read``; UsageError for flags that are not emulated."""
        known = FAN_REPORT_TID | FAN_REPORT_PIDFD | FAN_REPORT_FD_ERROR | _WITHOUT_EFFECT
        known |= FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION
        if unknown := flags & ~known:
            raise UsageError(
                f"fanotify_init flags {unknown:#x} are not emulated",
                "use FAN_REPORT_TID, PIDFD, FD_ERROR, DETAILED_ERROR or ERROR_LOCATION",
            )
        made = cls.read(flags)
        if made.thread and made.pidfd:  # Linux 7.2 and later give pidfds of threads
            raise UsageError("FAN_REPORT_TID excludes FAN_REPORT_PIDFD", "ask for one of them")
        return made

    @classmethod
    def read(cls, flags: int) -> GroupFlags:
        """What ``flags`` ask for, whatever else is in them."""
        return cls(
            thread=bool(flags & FAN_REPORT_TID),
            pidfd=bool(flags & FAN_REPORT_PIDFD),
            numbers=bool(flags & FAN_REPORT_FD_ERROR),
            detail=bool(flags & FAN_REPORT_DETAILED_ERROR),
            location=bool(flags & FAN_REPORT_ERROR_LOCATION),
        )

    @property
    def fd(self) -> int:
        """``fd`` of an event without a file."""
        return -errno.EBADF if self.numbers else FAN_NOFD

    @property
    def no_pidfd(self) -> int | None:
        """``pidfd`` of an event whose process is gone or unknown; None without a record."""
        if not self.pidfd:
            return None
        return -errno.ESRCH if self.numbers else FAN_NOPIDFD

    def failed_pidfd(self, error: int) -> int:
        """``pidfd`` where none could be opened; ``error`` is the positive errno."""
        return -error if self.numbers else FAN_EPIDFD
