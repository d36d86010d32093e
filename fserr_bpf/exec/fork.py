"""The caller becomes the client, its grandchild the supervisor, the process between the guardian.

So the client keeps the caller's pid, parent, terminal and place in the shell's job, and the
shell waits for no other.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from fserr_bpf.children.channel import Channel, channel_pair
from fserr_bpf.children.inherited import keep_only
from fserr_bpf.errors import ClientError, FserrError, KernelError
from fserr_bpf.exec.fanotifycalls import STOPPED
from fserr_bpf.exec.guardian import Guardians, Lock, guard
from fserr_bpf.exec.limits import raise_limit, require_room, too_many_files
from fserr_bpf.exec.lines import ErrorLines
from fserr_bpf.kernel import procfs
from fserr_bpf.tasks.credentials import out_of_reach
from fserr_bpf.tasks.needs import check_needs
from fserr_bpf.tasks.seccomp import Listener, install_filter

ARMING = "arming probes"
"""Said where it takes longer than a second, as the first time on a kernel."""

_PATIENCE_SECONDS = 1.0
_READY: dict[str, str] = {}

Supervise = Callable[[Callable[[], Listener | None], Guardians], None]
"""Attaches, asks for the listener (None: the client's process has gone), supervises to the end."""


def become_client(command: Sequence[str], supervise: Supervise, *, debug: bool) -> NoReturn:
    """Run ``command`` in this process, under a supervisor of its own.

    Raises what ``supervise`` raised before it asked for the listener, if that is an
    FserrError; ClientError if the command cannot be executed.
    """
    if shutil.which(command[0]) is None:
        raise ClientError(f"{command[0]}: command not found", "give the path of a program")
    check_needs()
    ours, theirs = channel_pair()
    guardian = os.fork()
    if guardian == 0:
        ours.close()
        _become_supervisor(theirs, supervise, debug=debug)
    theirs.close()
    os.waitpid(guardian, 0)  # it has only made another one
    if not select.select([ours], [], [], _PATIENCE_SECONDS)[0]:
        with ErrorLines() as lines:
            lines.write(ARMING)
    _wait(ours)
    listener = install_filter(STOPPED)
    ours.send_descriptors({}, [listener])
    os.close(listener)
    _wait(ours)
    ours.close()
    # Python ignores these for itself; the client did not ask for it
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        raise ClientError(f"{command[0]}: {error.strerror}", "give an executable") from error


def _wait(channel: Channel) -> None:
    try:
        answer = channel.receive()
    except EOFError:
        raise KernelError("the supervisor ended early", "run it with fserr-bpf --debug") from None
    if answer:
        raise FserrError.from_json(answer)


def _become_supervisor(channel: Channel, supervise: Supervise, *, debug: bool) -> NoReturn:
    """Be the child: leave the caller's job, and split into guardian and supervisor."""
    if os.fork():
        os._exit(0)  # its parent waits only for this, and init adopts the guardian
    os.setsid()
    os.chdir("/")
    raise_limit()
    out_of_reach()
    keep_only(channel.fileno(), sys.stderr.fileno(), procfs.directory())
    ours, supervisors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent, lock = os.getpid(), Lock()
    child = os.fork()
    if child:
        channel.close()
        supervisors.close()
        guard(child, os.pidfd_open(child), ours, lock, {})
        os._exit(0)
    ours.close()
    guardians = Guardians(parent, supervisors, lock)
    status = 1
    try:
        _supervise(channel, supervise, guardians, debug=debug)
        guardians.dismiss()
        status = 0
    except BaseException:
        with ErrorLines() as lines:
            lines.write_text(traceback.format_exc())
    finally:
        os._exit(status)


def _supervise(
    channel: Channel, supervise: Supervise, guardians: Guardians, *, debug: bool
) -> None:
    asked = False

    def listener() -> Listener | None:
        nonlocal asked
        newest = os.dup(channel.fileno())
        os.close(newest)
        require_room(newest)
        asked = True
        channel.send(_READY)
        try:
            _, (fd,) = channel.receive_descriptors()
        except EOFError:
            return None
        found = Listener(fd)
        channel.send(_READY)
        channel.close()
        return found

    try:
        try:
            supervise(listener, guardians)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            raise KernelError(too_many_files(), "raise it with ulimit -n") from error
    except FserrError as error:
        if asked:
            raise
        if debug:
            traceback.print_exc()
        channel.send(error.to_json())
