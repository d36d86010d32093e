"""Work in a process of its own, which may go to places that one cannot leave again."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from typing import NoReturn, TypeVar

_PIPE_SIZE = 65536

T = TypeVar("T")


def in_child(work: Callable[[], T]) -> T:
    """Fork and do ``work``; what it returns, or raises as an Exception, comes back pickled.

    That must be small (what fits into a pipe, 64 KiB). When this returns the child is gone,
    with all that it had open. Raises InterruptedError if somebody stopped or killed the child,
    OSError if there can be none.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = os.fork()
        if pid == 0:
            _child(writer, work)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):  # nobody may make us wait
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not os.WIFEXITED(status):
            raise InterruptedError
        message = os.read(reader, _PIPE_SIZE)
    finally:
        os.close(reader)
        os.close(writer)
    # from our own code: nobody but the child had the pipe
    result, error = pickle.loads(message)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _child(writer: int, work: Callable[[], object]) -> NoReturn:
    try:
        os.write(writer, pickle.dumps(_outcome(work)))
    finally:
        # whatever happened: nothing that the parent wants to do at its own end
        os._exit(0)


def _outcome(work: Callable[[], object]) -> tuple[object, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error
