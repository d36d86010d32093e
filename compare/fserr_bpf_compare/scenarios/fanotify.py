"""What groups, flags and readers do, whatever the error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from fserr_bpf.uapi.fanotify import (
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FD_ERROR,
    FAN_REPORT_NAME,
    FAN_REPORT_PIDFD,
    FAN_REPORT_TARGET_FID,
    FAN_REPORT_TID,
)
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.fault import EFSCORRUPTED, Expected, run_child
from fserr_bpf_compare.faults.reporter import Reporter
from fserr_bpf_compare.scenarios.scenario import Fixture, Need, Scenario, always, fault_scenario

_BY_NAME = {fault.name: fault for fault in FAULTS}
_TRIGGER = _BY_NAME["ext4_trigger"]
_LISTING = _BY_NAME["ext4_htree_checksum"]

_SUPERBLOCK = always(Expected(EFSCORRUPTED, "sb"))
_LOGGED = r"EXT4-fs error \(device {dev}\): trigger_test_error:\d+: comm \S+: x"
_EVENT = 56  # bytes of a superblock error
_WITH_PIDFD = _EVENT + 8

# Two threads, one after the other, each with two errors: they merge by thread.
_TWO_THREADS = """
import sys, threading
def meet():
    for _ in range(2):
        with open(sys.argv[1], "w") as trigger:
            trigger.write("x")
for _ in range(2):
    thread = threading.Thread(target=meet)
    thread.start()
    thread.join()
"""


def _threads(flags: int) -> Callable[[Fixture], None]:
    def run(fixture: Fixture) -> None:
        fs = fixture.scratch("ext4")
        fixture.watch(fs, flags=flags)
        path = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
        fixture.record(run_child(sys.executable, "-S", "-c", _TWO_THREADS, path, path=path))

    return run


def _running_and_exited(flags: int) -> Callable[[Fixture], None]:
    """Events of a process that still runs when they are read, and of one that has exited."""

    def run(fixture: Fixture) -> None:
        fs = fixture.scratch("ext4")
        fixture.watch(fs, flags=flags)
        with Reporter() as running:
            fixture.record(running.trigger(fs))
            fixture.record(_TRIGGER.cause(fs))
            fixture.read()

    return run


def _overflow(flags: int) -> Callable[[Fixture], None]:
    def run(fixture: Fixture) -> None:
        fs = fixture.scratch("ext4")
        fixture.watch(fs, flags=flags, max_events=1)
        for _ in range(2):
            fixture.record(_TRIGGER.cause(fs))

    return run


def _small_buffers(flags: int, length: int) -> Callable[[Fixture], None]:
    """``length`` is that of each of two events, in bytes."""

    def run(fixture: Fixture) -> None:
        fs = fixture.scratch("ext4")
        fixture.watch(fs, flags=flags)
        for _ in range(2):
            fixture.record(_TRIGGER.cause(fs))
        for size in (0, 24, length - 1):  # EINVAL, and the event stays
            fixture.read(size)
        fixture.read(2 * length - 1)  # the first one whole, nothing of the second
        fixture.read(length)
        fixture.read(length)  # EAGAIN

    return run


def _several(fixture: Fixture) -> None:
    """Inode and superblock errors of two file systems, in the order of the errors."""
    one, other, unmarked = (fixture.scratch("ext4") for _ in range(3))
    _LISTING.damage(other)
    fixture.watch(one, other)
    fixture.record(_TRIGGER.cause(one))
    fixture.record(_LISTING.cause(other))
    fixture.record(_TRIGGER.cause(unmarked))
    fixture.record(_TRIGGER.cause(other))
    fixture.record(_TRIGGER.cause(one))
    fixture.read()


def _namespace(fixture: Fixture) -> None:
    """The reader's numbers: of a neighbour, of a namespace below, and 0 of what it cannot see."""
    fs = fixture.scratch("ext4")
    fixture.watch(fs)
    fixture.record(_TRIGGER.cause(fs))
    with Reporter("unshare", "--pid", "--fork") as below:
        fixture.record(below.trigger(fs))
    fixture.record(fixture.outside(fs))


def _one(
    name: str,
    summary: str,
    run: Callable[[Fixture], None],
    *needs: Need,
    namespace: bool = False,
) -> Scenario:
    return Scenario(
        name=f"fanotify_{name}",
        area="fanotify",
        summary=summary,
        run=run,
        expected=_SUPERBLOCK,
        evidence=_LOGGED,
        needs=frozenset(needs),
        namespace=namespace,
    )


def _of_directories(name: str, summary: str, flags: int, *needs: Need) -> Scenario:
    """A directory's error: the flags of directories must not change its event."""
    return replace(
        fault_scenario(_LISTING, flags),
        name=f"fanotify_{name}",
        area="fanotify",
        summary=summary,
        needs=frozenset(needs),
    )


SCENARIOS: tuple[Scenario, ...] = (
    _one("threads", "threads of one process, without FAN_REPORT_TID", _threads(0)),
    _one("tid", "threads of one process, with FAN_REPORT_TID", _threads(FAN_REPORT_TID)),
    _one(
        "pidfd",
        "FAN_REPORT_PIDFD: of a running process and of one that has exited",
        _running_and_exited(FAN_REPORT_PIDFD),
        Need.PIDFD,
    ),
    _one(
        "fd_error",
        "FAN_REPORT_FD_ERROR: error numbers instead of -1",
        _running_and_exited(FAN_REPORT_PIDFD | FAN_REPORT_FD_ERROR),
        *(Need.PIDFD, Need.FD_ERROR),
    ),
    _one(
        "overflow_pidfd",
        "FAN_Q_OVERFLOW with FAN_REPORT_PIDFD",
        _overflow(FAN_REPORT_PIDFD),
        Need.PIDFD,
    ),
    _one(
        "overflow_fd_error",
        "FAN_Q_OVERFLOW with FAN_REPORT_FD_ERROR",
        _overflow(FAN_REPORT_FD_ERROR),
        Need.FD_ERROR,
    ),
    _of_directories("dir_fid", "an error of a directory, FAN_REPORT_DIR_FID", FAN_REPORT_DIR_FID),
    _of_directories(
        "dir_fid_name",
        "an error of a directory, FAN_REPORT_DIR_FID and NAME",
        FAN_REPORT_DIR_FID | FAN_REPORT_NAME,
    ),
    _of_directories(
        "target_fid",
        "an error of a directory, FAN_REPORT_DIR_FID, NAME and TARGET_FID",
        FAN_REPORT_DIR_FID | FAN_REPORT_NAME | FAN_REPORT_TARGET_FID,
        Need.TARGET_FID,
    ),
    _one(
        "small_buffers",
        "reads of less than an event: EINVAL, and it stays",
        _small_buffers(0, _EVENT),
    ),
    _one(
        "small_buffers_pidfd",
        "reads of less than an event with a pidfd",
        _small_buffers(FAN_REPORT_PIDFD, _WITH_PIDFD),
        Need.PIDFD,
    ),
    _one("several_in_one_read", "events of two file systems in one read", _several),
    _one(
        "pid_namespace",
        "a reader in a pid namespace: pids as it sees them",
        _namespace,
        namespace=True,
    ),
)
