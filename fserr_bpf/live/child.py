"""Work in a process of its own, which may enter places that it could never leave again."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

from fserr_bpf.errors import PrivilegeError

T = TypeVar("T")


class _Outcome(IntEnum):
    DONE = 0
    NOT_ENTERED = 1
    FAILED = 2


def in_child(enter: Callable[[], None], work: Callable[[], T]) -> T:
    """Fork, ``enter()``, ``work()``; what work returns or raises, which must be picklable.

    When this returns the child is gone, with all that it had open. Raises PrivilegeError if
    ``enter`` raises OSError, InterruptedError if somebody killed the child, OSError if there
    can be none.
    """
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        _child(writer, enter, work)
    os.close(writer)
    try:
        with open(reader, "rb") as pipe:
            message = pipe.read()
    finally:
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise InterruptedError
    # from our own code, and nobody but the child had the pipe
    outcome, result = pickle.loads(message)
    if outcome == _Outcome.NOT_ENTERED:
        raise PrivilegeError(
            f"cannot act in the client's place ({os.strerror(result)})",
            "run as root with all capabilities",
        )
    if outcome == _Outcome.FAILED:
        raise result
    return result  # type: ignore[no-any-return]


def _child(writer: int, enter: Callable[[], None], work: Callable[[], object]) -> None:
    """Never returns, and runs nothing that the parent wants to do at its own end."""
    try:
        with open(writer, "wb") as pipe:
            pickle.dump(_outcome(enter, work), pipe)
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)


def _outcome(enter: Callable[[], None], work: Callable[[], object]) -> tuple[_Outcome, object]:
    try:
        enter()
    except OSError as error:
        return _Outcome.NOT_ENTERED, error.errno
    try:
        return _Outcome.DONE, work()
    except Exception as error:
        if not isinstance(error, OSError):
            error.add_note(traceback.format_exc())
        return _Outcome.FAILED, error
