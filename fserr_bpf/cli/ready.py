"""The ready signal: to a harness on a descriptor of its own, to a service manager on its socket.

The descriptor follows s6, see https://skarnet.org/software/s6/notifywhenup.html; the socket
sd_notify(3).
"""

from __future__ import annotations

import argparse
import fcntl
import math
import os
import socket
import time

from fserr_bpf.cli.watching import say
from fserr_bpf.closing import Closing
from fserr_bpf.errors import UsageError

_STDERR = 2


def add_ready(parser: argparse.ArgumentParser) -> None:
    """--ready-fd: for a program that waits until the probes are attached."""
    parser.add_argument(
        "--ready-fd",
        metavar="N",
        help="once attached, write the line READY=1 to descriptor N and close it",
    )


class Readiness(Closing):
    """Signals once that errors are seen from now on, and at the end that they no longer are.

    ``number`` is what --ready-fd got, or None. To be made before anything else is opened, which
    might get that number, and while the rights are there that $NOTIFY_SOCKET may need. Children
    inherit neither. Raises UsageError for what is no descriptor to write to.
    """

    def __init__(self, number: str | None) -> None:
        self._descriptor = None if number is None else _writable(number)
        self._manager = _manager()
        self._signalled = False
        self.alive_seconds = _alive_seconds() if self._manager else None
        """How often the manager wants to hear ``alive()`` at least; None for never."""
        self._alive_at = -math.inf

    def signal(self) -> None:
        """READY=1 to both."""
        self._signalled = True
        if self._descriptor is not None:
            try:
                os.write(self._descriptor, b"READY=1\n")
            except OSError as error:  # not a reason to stop watching
                say(f"cannot write READY=1 to descriptor {self._descriptor}: {error.strerror}")
            os.close(self._descriptor)
            self._descriptor = None
        self._notify(b"READY=1")

    def alive(self) -> None:
        """WATCHDOG=1, if the manager wants it and it is time."""
        now = time.monotonic()
        if self.alive_seconds is not None and now >= self._alive_at + self.alive_seconds / 2:
            self._alive_at = now
            self._notify(b"WATCHDOG=1")

    def reloading(self) -> None:
        """Another configuration is being read; ``reloaded()`` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify(b"RELOADING=1\nMONOTONIC_USEC=%d" % now)

    def reloaded(self) -> None:
        """It goes on, with the one or the other."""
        self._notify(b"READY=1")

    def close(self) -> None:
        """STOPPING=1 to the service manager, if it got READY=1; may be called again."""
        if self._descriptor is not None:  # its reader sees the end without a line
            os.close(self._descriptor)
            self._descriptor = None
        if self._manager:
            if self._signalled:
                self._notify(b"STOPPING=1")
            self._manager.close()
            self._manager = None

    def _notify(self, message: bytes) -> None:
        if self._manager:
            try:
                self._manager.send(message, socket.MSG_DONTWAIT)
            except OSError as error:
                say(f"NOTIFY_SOCKET has not got {message.decode()}: {error.strerror}")


def _writable(text: str) -> int:
    """The descriptor, which from now on is not inherited."""
    use = "name a descriptor that is open for writing"
    if not text.isdecimal() or int(text) <= _STDERR:
        raise UsageError(f"--ready-fd {text} is not a number above {_STDERR}", use)
    try:
        mode = fcntl.fcntl(int(text), fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError):
        raise UsageError(f"--ready-fd {text} is not open", use) from None
    if mode == os.O_RDONLY:
        raise UsageError(f"--ready-fd {text} is open for reading only", use)
    os.set_inheritable(int(text), False)
    return int(text)


def _alive_seconds() -> float | None:
    """Half of what $WATCHDOG_USEC says: one that is late by so much is not killed yet."""
    microseconds = os.environ.pop("WATCHDOG_USEC", "")
    pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or not int(microseconds) or pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000


def _manager() -> socket.socket | None:
    """A socket to the service manager that has started this process, if one has."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return None
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # "@" stands for the zero byte of an abstract name, which no variable can have
        manager.connect(f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:  # also where the manager has ended: not a reason to stop
        say(f"NOTIFY_SOCKET={address} cannot be reached: {error.strerror or error}")
        manager.close()
        return None
    return manager
