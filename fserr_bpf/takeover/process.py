"""Who becomes whom: the caller becomes the client, its grandchild the supervisor.

So the client keeps the caller's pid, parent, terminal and place in the shell's job, and the
shell waits for nobody else. The process in between is the guardian.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from fserr_bpf import errors
from fserr_bpf.errors import ClientError, FserrError, KernelError
from fserr_bpf.live.seccomp import Listener, install_filter
from fserr_bpf.takeover.guardian import Trust, guard

_MESSAGE = 1 << 16
_READY = b"{}"

Supervise = Callable[[Callable[[], Listener | None], Trust], None]
"""Arms, asks for the listener (None: the client's process has gone), supervises to the end."""


def become_client(command: Sequence[str], supervise: Supervise, *, debug: bool) -> NoReturn:
    """Run ``command`` in this process, under a supervisor of its own.

    Raises what ``supervise`` raised before it asked for the listener, if that is an
    FserrError; ClientError if the command cannot be executed.
    """
    if shutil.which(command[0]) is None:
        raise ClientError(f"{command[0]}: command not found", "give the path of a program")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guardian = os.fork()
    if guardian == 0:
        ours.close()
        _stand_behind(theirs, supervise, debug=debug)
    theirs.close()
    os.waitpid(guardian, 0)  # it has only made another one
    _wait(ours)
    listener = install_filter()
    socket.send_fds(ours, [b"listener"], [listener])
    os.close(listener)
    _wait(ours)
    ours.close()
    # what Python ignores for itself is not the client's wish
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        raise ClientError(f"{command[0]}: {error.strerror}", "give an executable") from error


def _wait(channel: socket.socket) -> None:
    data = channel.recv(_MESSAGE)
    if not data:
        raise KernelError("the supervisor has died", "run it with fserr-bpf --debug")
    answer = json.loads(data)
    if answer:
        kind: type[FserrError] = getattr(errors, answer["error"])
        raise kind(answer["cause"], answer["remedy"])


def _stand_behind(channel: socket.socket, supervise: Supervise, *, debug: bool) -> NoReturn:
    """Be the child: leave the caller's job, and split into guardian and supervisor."""
    if os.fork():
        os._exit(0)  # its parent waits only for this, and init adopts the guardian
    os.setsid()
    os.chdir("/")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each group takes several
    _close_all_but(channel.fileno(), sys.stderr.fileno())
    guardians, supervisors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child:
        channel.close()
        supervisors.close()
        guard(child, guardians)
        os._exit(0)
    guardians.close()
    status = 1
    try:
        _supervise(channel, supervise, Trust(supervisors), debug=debug)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _supervise(channel: socket.socket, supervise: Supervise, trust: Trust, *, debug: bool) -> None:
    asked = False

    def listener() -> Listener | None:
        nonlocal asked
        asked = True
        channel.send(_READY)
        _, fds, _, _ = socket.recv_fds(channel, _MESSAGE, 1)
        if not fds:
            return None
        os.set_inheritable(fds[0], False)
        found = Listener(fds[0])
        channel.send(_READY)
        channel.close()
        return found

    try:
        supervise(listener, trust)
    except FserrError as error:
        if asked or debug:
            traceback.print_exc()
        if asked:
            raise
        answer = {
            "error": type(error).__name__,
            "cause": error.cause,
            "remedy": error.remedy,
        }
        channel.send(json.dumps(answer).encode())


def _close_all_but(*kept: int) -> None:
    """Nothing of the caller is held: its pipes would never end for their readers."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 1 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:  # the listing's own
                continue
