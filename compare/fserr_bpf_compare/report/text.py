"""What both page and XML do to text that comes from kernels, processes and disks."""

from __future__ import annotations

import re

from fserr_bpf.outputs.text import printable

_SUSPECT = re.compile(r"[^ -~]")


def visible(text: str) -> str:
    r"""``text`` with what does not print as ``\x1b``; lines, tabs and backslashes stay.

    What is left can be encoded in UTF-8 and is allowed in XML 1.0.
    """
    return _SUSPECT.sub(lambda found: _visible(found[0]), text)


def _visible(character: str) -> str:
    return character if character in "\n\t" else printable(character)
