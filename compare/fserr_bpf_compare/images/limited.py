"""A piece of work in a process of its own, which is given up if it does not end.

A call into a damaged file system may never return. Its process then cannot even be killed,
and whoever waits for it would hang with it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fserr_bpf_compare.signals_blocked import signals_blocked

KILL = 10.0
"""Seconds that a killed process has to go away; one that has not hangs in the kernel."""
_MOST_WORDS = 4096  # bytes of its output that are kept


class Ended(NamedTuple):
    """``status`` is its exit status, -N for signal N; None: it hangs in the kernel.

    ``words`` is what it wrote, in one line. ``late``: it was killed because its time was up.
    """

    status: int | None
    words: str
    late: bool = False


def limited(
    work: Callable[[], str],
    seconds: float,
    meanwhile: Mapping[int, Callable[[], object]] | None = None,
) -> Ended:
    """Run ``work`` in a fork of this process, which must have one thread; what it returns is
    printed there.

    OSError of it is exit status 1, and its words. ``meanwhile`` has what to call when a
    descriptor is readable.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    with signals_blocked():
        child = os.fork()
        if child == 0:
            _work(work, reading, writing)
        process = os.pidfd_open(child)
    os.close(writing)
    said = bytearray()
    try:
        late = not _gone(process, reading, said, seconds, meanwhile or {})
    except BaseException:
        _kill(child, process)
        raise
    else:
        status = _kill(child, process) if late else _status(child)
        said += _rest(reading)
    finally:
        os.close(process)
        os.close(reading)
    return Ended(status, " ".join(said[:_MOST_WORDS].decode(errors="replace").split()), late)


def _work(work: Callable[[], str], reading: int, writing: int) -> None:
    """In the child, to its end; a signal that is blocked here stays for the parent."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()  # Ctrl-C is for the parent
        os.close(reading)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, writing), (2, writing)):
            os.dup2(source, target)
        try:
            os.write(1, os.fsencode(work()))
            status = 0
        except OSError as error:
            os.write(1, os.fsencode(str(error)))
    finally:
        os._exit(status)


def _gone(
    process: int,
    reading: int,
    said: bytearray,
    seconds: float,
    meanwhile: Mapping[int, Callable[[], object]],
) -> bool:
    """Whether the process has ended within ``seconds``; ``said`` grows meanwhile."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    for descriptor in (process, reading, *meanwhile):
        poll.register(descriptor, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            if descriptor == process:
                return True
            if descriptor != reading:
                meanwhile[descriptor]()
            elif data := os.read(reading, 65536):
                said += data
            else:  # it has closed its output
                poll.unregister(reading)
    return False


def _kill(child: int, process: int) -> int | None:
    """Kill it; its status, or None if it does not go."""
    signal.pidfd_send_signal(process, signal.SIGKILL)
    gone, _, _ = select.select([process], [], [], KILL)
    return _status(child) if gone else None


def _status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _rest(reading: int) -> bytes:
    """What is left in the pipe; a process that hangs may hold it open."""
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 65536)
    except BlockingIOError:
        return b""
