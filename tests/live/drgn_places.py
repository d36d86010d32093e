"""The chain of an address as drgn tells it, from a debug file alone."""

from __future__ import annotations

import os
from pathlib import Path

import drgn

from tests.unit.test_symbolize import build_id, code_sections

_BASE = 0xFFFFFFFFC0000000  # any address at which a module may be loaded


class DrgnFile:
    """Offsets in .text of ``path``, a linked vmlinux or a relocatable module."""

    def __init__(self, path: Path) -> None:
        (text,) = (found for found in code_sections(path) if found[0] == ".text")
        _, start, size = text
        self._program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        self._start = start or _BASE
        module: drgn.Module
        if start:
            module = self._program.extra_module(path.name, 0, create=True)
        else:
            loaded = self._program.relocatable_module(path.name, _BASE, create=True)
            loaded.section_addresses[".text"] = _BASE
            module = loaded
        module.build_id = bytes.fromhex(build_id(path))
        module.address_range = (self._start, self._start + size)
        module.try_file(path, force=True)

    def chain(self, offset: int) -> list[tuple[str, str, int]]:
        """(function, file, line) at ``offset``, innermost first; [] between functions."""
        try:
            found = self._program.source_location(self._start + offset)
        except LookupError:
            return []
        if not all(frame.name() for frame in found):
            return []
        return [(f.name() or "", os.path.normpath(f.filename), f.line) for f in found]
