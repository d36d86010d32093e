"""Kernel addresses to function names, a line at a time.

The table is some 200,000 lines. Holding it would cost the monitor more memory
than everything else, and errors come from few places: each new address is one
pass over the file, its answer is kept.
"""

from __future__ import annotations

from typing import BinaryIO

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.capabilities import Capability, holds
from fserr_bpf.kernel.procfs import setting

KALLSYMS = "/proc/kallsyms"


def shows_addresses(proc: int | None = None) -> bool:
    """Whether the kernel shows its addresses to this process, as ``kallsyms_show_value()``.

    kernel.kptr_restrict is 2, or it is 1 or 0 and CAP_SYSLOG is missing: then not. ``proc`` is a
    procfs, as a descriptor.
    """
    return holds(Capability.SYSLOG) and setting("kernel/kptr_restrict", proc) < 2


class Kallsyms(Closing):
    """Names of kernel text addresses.

    The kernel decides at ``open`` whether this process may see addresses
    (kallsyms_show_value()), so open it before privileges are dropped.
    """

    def __init__(self, path: str = KALLSYMS) -> None:
        self._file: BinaryIO = open(path, "rb", buffering=1 << 16)  # noqa: SIM115 - kept open
        self._known: dict[int, str] = {0: ""}

    def function(self, address: int) -> str:
        """Name of the function that ``address`` is in; "" when it is unknown."""
        if address not in self._known:
            self._known[address] = self._look_up(address)
        return self._known[address]

    def _look_up(self, address: int) -> str:
        wanted = b"%016x" % address  # same width and base as the file: compares as text
        best, line = b"\0", b""
        self._file.seek(0)
        for candidate in self._file:
            start = candidate[:16]
            if best < start <= wanted:
                best, line = start, candidate
        fields = line.split()
        # hidden addresses are all zero, and data symbols have no business here
        if len(fields) < 3 or not best.strip(b"0") or fields[1] not in b"tTwW":
            return ""
        return fields[2].decode()

    def close(self) -> None:
        """Close the table."""
        self._file.close()
