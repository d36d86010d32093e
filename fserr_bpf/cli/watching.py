"""What the commands that watch share: their messages, and how they end."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.kernel.privileges import check_drop
from fserr_bpf.marks.followed import silent_types
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.state import StateChange
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs import text
from fserr_bpf.outputs.state import change_line
from fserr_bpf.probes.attached import check_privileges

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(line: str) -> None:
    """Print one line on standard error."""
    try:
        # names in it come from disks
        print(f"fserr-bpf: {text.printable(line)}", file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno != errno.EIO:  # the terminal has gone, and who would read it
            raise


def say_news(monitor: Monitor) -> None:
    """What has changed since the last time."""
    for line in monitor.news():
        say(line)


def say_states(monitor: Monitor) -> list[StateChange]:
    """Say what has changed of states, and return all of it."""
    changes = monitor.states.changes() if monitor.states else []
    for change in filter(is_news, changes):
        say(change_line(change))
    return changes


def is_news(change: StateChange) -> bool:
    """For people: that a file system is well is none at first."""
    return change.before is not None or not change.state.ok


def announce(monitor: Monitor) -> None:
    """Say that the probes are attached, on what, and what cannot be seen."""
    names = ", ".join(f"{_watched(m)} ({m.fstype} on {m.device})" for m in monitor.marks)
    say(f"watching {names or 'nothing yet'}; stream {monitor.stream}")
    for reason, blind in monitor.blind().items():
        say(f"cannot see {', '.join(blind)}: {reason}")
    for line in _not_seen(monitor):
        say(line)
    say_news(monitor)


def _watched(marked: MarkedFilesystem) -> str:
    """The file system by its mount point, or the parts of it that are marked."""
    if marked.whole_ns is not None or not marked.parts:
        return marked.mount_point
    inodes = [f"{len(marked.inodes)} inodes"] if marked.inodes else []
    return " and ".join([*(f"{part.kind}:{part.path}" for part in marked.parts), *inodes])


def _not_seen(monitor: Monitor) -> Iterator[str]:
    """Of the types of what is watched, and of those that are left out."""
    types: dict[tuple[str, ...], list[str]] = {}
    for driver in sorted({marked.driver for marked in monitor.marks}):
        if missing := monitor.not_seen(driver):
            types.setdefault(missing, []).append(driver)
    for missing, drivers in types.items():
        yield f"not seen of {', '.join(drivers)}: {', '.join(missing)}"
    if monitor.marks.follows and (silent := silent_types(read_mounts())):
        yield f"left out, because nothing can be seen of them: {', '.join(silent)}"


def check_rights(user: str | None) -> None:
    """Before anything is started: may this process attach probes, and become ``user`` then?

    Raises PrivilegeError, and UsageError for an unknown user.
    """
    check_privileges()
    check_drop(user)


def needed_capabilities(monitor: Monitor) -> list[Capability]:
    """What a monitor that is attached still needs."""
    needed = [Capability.SYS_PTRACE] if monitor.looks_elsewhere else []
    if monitor.marks.follows or (monitor.states and monitor.states.needs_right()):
        needed.append(Capability.DAC_READ_SEARCH)
    if monitor.marks.follows and not monitor.attached.kernel.kprobes:
        needed.append(Capability.SYS_ADMIN)
    return needed


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, which a hangup takes away."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def stop_signals(*, hangup: bool = True) -> Iterator[int]:
    """A descriptor that becomes readable at the first stop signal; the second one kills.

    It holds the numbers of the signals. Without ``hangup`` SIGHUP is there, but never kills.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # Written by the handler in C: one in Python would not run before poll(2) returns,
    # and a signal that comes just before poll(2) does not make it return.
    before = signal.set_wakeup_fd(writer)

    def kill_next_time(*_: object) -> None:
        for number in killing:
            signal.signal(number, signal.SIG_DFL)

    killing = [number for number in _STOP if hangup or number != signal.SIGHUP]
    previous = {number: signal.signal(number, kill_next_time) for number in killing}
    if not hangup:
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
