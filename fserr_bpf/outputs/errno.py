"""Names of error numbers as the kernel's file systems use them."""

from __future__ import annotations

from errno import errorcode

from fserr_bpf.uapi.errno import EFSBADCRC, EFSCORRUPTED

_FILE_SYSTEM_NAMES = {EFSCORRUPTED: "EFSCORRUPTED", EFSBADCRC: "EFSBADCRC"}
_NAMES = {**errorcode, **_FILE_SYSTEM_NAMES}


def errno_name(error: int) -> str:
    """Return the name of ``error`` of either sign, or its digits if it has none."""
    number = abs(error)
    return _NAMES.get(number, str(number))
