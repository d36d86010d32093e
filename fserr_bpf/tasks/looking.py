"""What goes wrong when another task is looked at, before anything is done for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fserr_bpf.errors import PrivilegeError


@contextmanager
def looking(at: str) -> Iterator[None]:
    """Inside, what is missing is a task that is gone: ProcessLookupError.

    What is not permitted is a right that we lack, not one of the task: PrivilegeError.
    """
    try:
        yield
    except FileNotFoundError:
        raise ProcessLookupError from None
    except PermissionError as error:
        raise PrivilegeError(
            f"{at} of a client cannot be read ({error.strerror})",
            "run as root with CAP_SYS_PTRACE and kernel.yama.ptrace_scope below 3",
        ) from error
