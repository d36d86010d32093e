"""Addresses of the running kernel made portable: without KASLR and load addresses.

Everything is read once, while the process may still see addresses; afterwards a lookup
touches no file. A module that is loaded later is not known, as it is not probed either.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.model.event import Address
from fserr_bpf.symbolize.notes import note_build_id

_KALLSYMS = "/proc/kallsyms"
_KERNEL_NOTES = Path("/sys/kernel/notes")
_MODULES = Path("/sys/module")
_PAGE = 4096
_WANTED = {b"_text", b"_etext", b"_einittext"}


class _Part(NamedTuple):
    """A section in memory; ``end`` is where the module, or vmlinux, ends at the latest."""

    start: int
    end: int
    address: Address


class RunningKernel:
    """The load addresses of vmlinux and of every module."""

    def __init__(self) -> None:
        self._parts = sorted([*_vmlinux(), *_modules()])
        self._starts = [part.start for part in self._parts]

    @property
    def hidden(self) -> str:
        """ "" or one line: why addresses cannot be made portable, and the remedy."""
        if self._parts:
            return ""
        return (
            "the kernel hides its addresses, so places are not resolved; "
            "run as root with sysctl kernel.kptr_restrict=1"
        )

    def portable(self, address: int) -> Address | None:
        """Where ``address`` is, on every host; None if it is in no section known here.

        A return address is behind the call that it belongs to: ask for the one before.
        """
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._parts[at].end:
            return None
        part = self._parts[at]
        return part.address._replace(offset=address - part.start)


def _vmlinux() -> list[_Part]:
    """One part: ``.text`` begins at _text, and KASLR moves all of it as one."""
    found: dict[bytes, int] = {}
    with open(_KALLSYMS, "rb", buffering=1 << 16) as table:
        for line in table:
            fields = line.split()
            if len(fields) == 3 and fields[2] in _WANTED:  # those of modules have four
                found[fields[2]] = int(fields[0], 16)
    build_id = note_build_id(_KERNEL_NOTES.read_bytes())
    start = found.get(b"_text", 0)
    if not start or not build_id:
        return []
    return [_Part(start, max(found.values()), Address(build_id, "", ".text", 0))]


def _modules() -> list[_Part]:
    """The code of all modules.

    Without that of their initialization: its memory has other owners by now.
    """
    parts = []
    for module in sorted(_MODULES.glob("*/sections")):
        folder = module.parent
        try:
            build_id = note_build_id((folder / "notes/.note.gnu.build-id").read_bytes())
            # of its code and data, so no part ends behind it
            size = int((folder / "coresize").read_text())
            starts = {
                path.name: int(path.read_text(), 16) for path in module.iterdir() if path.is_file()
            }
        except (OSError, ValueError):  # unloaded meanwhile, or not for this user
            continue
        starts = {name: start for name, start in starts.items() if start}
        for name, start in starts.items():
            if "text" not in name or name.startswith(".init"):
                continue
            later = [other for other in starts.values() if start < other < start + size]
            end = min(later, default=start + -(-size // _PAGE) * _PAGE)
            parts.append(_Part(start, end, Address(build_id, folder.name, name, 0)))
    return parts
