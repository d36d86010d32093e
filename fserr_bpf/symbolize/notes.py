"""The build-id among ELF notes, of a file or as sysfs shows them."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<III")  # Elf64_Nhdr: length of the name, of the data, type
_NT_GNU_BUILD_ID = 3


def note_build_id(notes: bytes) -> str:
    """The GNU build-id among ELF ``notes`` in lower-case hexadecimal, "" if there is none."""
    offset = 0
    while offset + _HEADER.size <= len(notes):
        name_size, size, kind = _HEADER.unpack_from(notes, offset)
        start = offset + 12 + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[offset + 12 : offset + 16] == b"GNU\0":
            return notes[start : start + size].hex()
        offset = start + (size + 3 & ~3)
    return ""
