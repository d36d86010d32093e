"""The walk of a piece of work through our modules: which one control enters, in which order.

A call from one module of ours into another begins a *stay*; that it comes back to the module
which called is a *return*. What others do in between does not count: the standard library,
which calls our functions back, is looked through, and so is code that it generated for a
dataclass or a NamedTuple, what values do by themselves (``uapi``), ``kernel.libc``, which
stands for the C library, and ``tasks.looking``, which only turns one error into another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

_PACKAGE = "fserr_bpf."
_LOOKED_THROUGH = ("fserr_bpf.kernel.libc", "fserr_bpf.tasks.looking", "fserr_bpf.uapi.")


class Stay(NamedTuple):
    """``module`` is without the package's name; ``function`` is what it was entered by."""

    module: str
    function: str


class Walk:
    """What was entered, in order; ``returns`` is how often control came back to a module."""

    def __init__(self) -> None:
        self.stays: list[Stay] = []
        self.returns = 0
        self._entered: list[str] = []

    def modules(self) -> list[str]:
        """Of each stay, in order."""
        return [stay.module for stay in self.stays]

    def see(self, frame: FrameType, event: str, _argument: object) -> None:
        """What :func:`sys.setprofile` calls; a generator that goes on is a call as well."""
        if event not in ("call", "return"):  # functions in C
            return
        module = _module_of(frame)
        if module is None:
            return
        if event == "call":
            if self._entered[-1:] != [module]:
                self.stays.append(Stay(module, frame.f_code.co_qualname))
            self._entered.append(module)
        elif self._entered:  # not what was called before the trace began
            self._entered.pop()
            if self._entered[-1:] not in ([], [module]):
                self.returns += 1


def _module_of(frame: FrameType) -> str | None:
    name = str(frame.f_globals.get("__name__", ""))
    if not name.startswith(_PACKAGE) or name.startswith(_LOOKED_THROUGH):
        return None
    if frame.f_code.co_filename.startswith("<"):
        return None
    return name.removeprefix(_PACKAGE)


@contextmanager
def walked() -> Iterator[Walk]:
    """Trace this thread until the block ends. Work in other threads and processes is not seen."""
    walk, before = Walk(), sys.getprofile()
    sys.setprofile(walk.see)
    try:
        yield walk
    finally:
        sys.setprofile(before)
