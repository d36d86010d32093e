"""Work in a process of its own, which may enter namespaces that cannot be left again."""

from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Callable
from typing import NoReturn, TypeVar

from fserr_bpf.kernel.libc import failure
from fserr_bpf.tasks.credentials import end_with_parent

_PIPE_SIZE = 65536
_UNKNOWN = 255

T = TypeVar("T")


def in_child(work: Callable[[], T]) -> T:
    """Fork and do ``work``; what it returns, or raises as an Exception, comes back pickled.

    That must be small (what fits into a pipe, 64 KiB). When this returns the child is gone,
    with all that it had open; it does not outlive us either. Raises InterruptedError if the
    child was stopped or killed, OSError if there can be none.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _child(writer, work, parent)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):  # its client may, and must not make us wait
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not os.WIFEXITED(status):
            raise failure(errno.EINTR)
        message = os.read(reader, _PIPE_SIZE)
    finally:
        os.close(reader)
        os.close(writer)
    # from our own code: no other process had the pipe
    result, error = pickle.loads(message)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def start_in_child(work: Callable[[], object]) -> int:
    """Fork and do ``work``; the pid of the child, which the caller waits for.

    Its status is 0, or where ``work`` fails the errno of an OSError and otherwise 255; it does not
    outlive us. Raises OSError if there can be none.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = _UNKNOWN
        try:
            end_with_parent(parent)
            work()
            status = 0
        except OSError as error:
            status = error.errno or _UNKNOWN
        finally:
            os._exit(status)
    return pid


def _child(writer: int, work: Callable[[], object], parent: int) -> NoReturn:
    try:
        end_with_parent(parent)
        os.write(writer, pickle.dumps(_outcome(work)))
    finally:
        # whatever happened: nothing that the parent wants to do at its own end
        os._exit(0)


def _outcome(work: Callable[[], object]) -> tuple[object, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error
