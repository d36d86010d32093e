"""fanotify_init flags of an emulated group; the values are those of a real group on 6.18."""

from __future__ import annotations

import pytest

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.codec.reader import read
from fserr_bpf.errors import UsageError
from fserr_bpf.model.event import Event, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.uapi.fanotify import (
    FAN_REPORT_FD_ERROR,
    FAN_REPORT_FID,
    FAN_REPORT_PIDFD,
    FAN_REPORT_TID,
)

FSID = Fsid(1, 0)


@pytest.mark.parametrize(
    ("flags", "overflow"),
    [
        (0, "18000000 03001800 00400000 00000000 ffffffff 00000000"),
        (FAN_REPORT_FD_ERROR, "18000000 03001800 00400000 00000000 f7ffffff 00000000"),
        (
            FAN_REPORT_PIDFD,
            "20000000 03001800 00400000 00000000 ffffffff 00000000 04000800 ffffffff",
        ),
        (
            FAN_REPORT_PIDFD | FAN_REPORT_FD_ERROR,
            "20000000 03001800 00400000 00000000 f7ffffff 00000000 04000800 fdffffff",
        ),
    ],
)
def test_overflow_is_as_the_kernel_sends_it(flags: int, overflow: str) -> None:
    made = GroupFlags.of(flags)
    assert encode(OverflowEvent(fd=made.fd, pidfd=made.no_pidfd)) == bytes.fromhex(overflow)


def test_failure_to_open_is_a_constant_or_its_number() -> None:
    assert GroupFlags.of(FAN_REPORT_PIDFD).failed_pidfd(24) == -2
    assert GroupFlags.of(FAN_REPORT_PIDFD | FAN_REPORT_FD_ERROR).failed_pidfd(24) == -24


@pytest.mark.parametrize("flags", [0x4, 0x10, 0x4000, FAN_REPORT_TID | FAN_REPORT_PIDFD])
def test_what_is_not_emulated_is_refused(flags: int) -> None:
    with pytest.raises(UsageError, match="FAN_REPORT_"):
        GroupFlags.of(flags)


def test_flags_of_directories_change_nothing() -> None:
    assert GroupFlags.of(FAN_REPORT_FID | 0x1C00) == GroupFlags.of(0)


def superblock_error(pid: int, pidfd: int) -> FsErrorEvent:
    return FsErrorEvent(FSID, None, 117, 1, pid, pidfd=pidfd)


def test_an_event_is_completed_only_when_it_is_read() -> None:
    queue = NotificationQueue()
    queue.insert(FSID, 1, lambda: superblock_error(1, -1))
    queue.insert(FSID, 2, lambda: superblock_error(2, -1))
    opened: list[int] = []

    def complete(event: Event) -> Event:
        assert isinstance(event, FsErrorEvent)
        opened.append(event.pid)
        return event._replace(pidfd=70 + event.pid)

    with pytest.raises(OSError, match="Invalid argument"):
        read(queue, 63, complete)
    assert opened == []
    assert read(queue, 2 * 64 - 1, complete) == encode(superblock_error(1, 71))
    assert opened == [1]
    assert read(queue, 64, complete) == encode(superblock_error(2, 72))
