"""What symbolization makes of an address."""

from __future__ import annotations

from typing import NamedTuple


class Frame(NamedTuple):
    """A function and a line in it; ``file`` is relative to the directory of the build.

    ``file`` is "" and ``line`` 0 where the debug information does not say.
    """

    function: str
    file: str
    line: int


class Place(NamedTuple):
    """What is at an address.

    ``function`` is the symbol that the kernel's own ``%pS`` would print, with suffixes
    such as ``.part.0``, and ``offset`` the bytes from its start. ``frames`` is the inline
    chain, innermost first: the last one is the function that was compiled, the others are
    inlined into it. ``note`` says what is missing, "" if nothing is.
    """

    function: str
    offset: int
    frames: tuple[Frame, ...]
    note: str = ""


class NoSymbol(Exception):
    """There is no place; the text, one line, says why."""
