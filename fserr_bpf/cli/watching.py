"""What the commands that watch share: what they say, and how they end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fserr_bpf.live.privileges import Capability
from fserr_bpf.marks import MarkedFilesystem
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs import text

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(line: str) -> None:
    """One line on standard error."""
    # names in it come from disks
    print(f"fserr-bpf: {text.printable(line)}", file=sys.stderr, flush=True)


def say_news(monitor: Monitor) -> None:
    """What has changed since the last time."""
    for line in monitor.news():
        say(line)


def announce(monitor: Monitor) -> None:
    """Say that the probes are armed, on what, and what cannot be seen."""
    names = ", ".join(f"{_heard(m)} ({m.fstype} on {m.device})" for m in monitor.marks)
    say(f"watching {names or 'nothing yet'}; stream {monitor.stream}")
    for reason, blind in monitor.blind().items():
        say(f"cannot see {', '.join(blind)}: {reason}")
    say_news(monitor)


def _heard(marked: MarkedFilesystem) -> str:
    """The file system by its mount point, or the parts of it that are marked."""
    if marked.whole_ns is not None or not marked.parts:
        return marked.mount_point
    inodes = [f"{len(marked.inodes)} inodes"] if marked.inodes else []
    return " and ".join([*(f"{part.kind}:{part.path}" for part in marked.parts), *inodes])


def needed_capabilities(monitor: Monitor) -> list[Capability]:
    """What a monitor that is armed still needs."""
    # the mount tables of other processes
    needed = [Capability.SYS_PTRACE] if monitor.marks.processes else []
    if not monitor.marks.follows:
        return needed
    needed.append(Capability.DAC_READ_SEARCH)
    if not monitor.armed.kernel.kprobes:
        needed.append(Capability.SYS_ADMIN)
    return needed


@contextmanager
def stop_signals() -> Iterator[int]:
    """A descriptor that becomes readable at the first stop signal; the second one kills."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # Written by the handler in C: one in Python would not run before poll(2) returns,
    # and a signal that comes just before poll(2) does not make it return.
    before = signal.set_wakeup_fd(writer)

    def kill_next_time(*_: object) -> None:
        for number in _STOP:
            signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, kill_next_time) for number in _STOP}
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
