"""The least that asking a supervisor costs: one in Python that lets each mark through unseen."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence

from fserr_bpf.tasks.filter import Rule
from fserr_bpf.tasks.seccomp import Listener, install_filter
from fserr_bpf.uapi.seccomp import NR_FANOTIFY_MARK

_ALL_MARKS = (Rule(NR_FANOTIFY_MARK, 0),)
_FIRST = 3  # the descriptor behind the standard ones


def output_of(command: Sequence[str], timeout: float) -> str:
    """What ``command`` prints while a supervisor answers its marks.

    Raises CalledProcessError, TimeoutExpired.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = [sys.executable, "-m", __name__, str(theirs.fileno()), *command]
        process = subprocess.Popen(
            child, stdout=subprocess.PIPE, text=True, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
        with Listener(fd) as listener:
            _serve(listener)
        output, _ = process.communicate(timeout=timeout)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, child)
    return output


def _serve(listener: Listener) -> None:
    """Until no task is left that the filter holds for."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while poll.poll()[0][1] & select.POLLIN:
        if call := listener.receive():
            listener.let_through(call)


def _be_client(channel: int, *command: str) -> None:
    with socket.socket(fileno=channel) as theirs:
        listener = install_filter(_ALL_MARKS)
        socket.send_fds(theirs, [b"x"], [listener])
        os.close(listener)
    os.execv(command[0], command)


if __name__ == "__main__":
    _be_client(int(sys.argv[1]), *sys.argv[2:])
