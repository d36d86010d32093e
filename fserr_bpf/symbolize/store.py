"""The on-disk index: a folder per build-id, a file per unit, shared by all processes.

A file is written under another name and renamed, so that readers see all of it or none.
What is damaged or of another version counts as absent and is written anew. A disk that
is full or read-only costs time, nothing else.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

_VERSION = 1
_HEADER = struct.Struct("<8sIIQ")  # magic, version, CRC-32 of the rest, its length
_MAGIC = b"fserrsym"


def default_folder() -> Path:
    """The folder of this user, by the XDG base directory rules."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "fserr-bpf/symbols"


class Store:
    """Named pieces of bytes; ``key`` and ``name`` must be safe as names of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, name: str) -> bytes | None:
        """What was put, None if it is not there or no longer as it was."""
        try:
            data = (self.folder / key / name).read_bytes()
        except OSError:
            return None
        if len(data) < _HEADER.size:
            return None
        magic, version, checksum, length = _HEADER.unpack_from(data)
        payload = data[_HEADER.size :]
        good = (magic, version, length) == (_MAGIC, _VERSION, len(payload))
        return payload if good and zlib.crc32(payload) == checksum else None

    def put(self, key: str, name: str, payload: bytes) -> None:
        """Keep ``payload``, if the disk takes it."""
        header = _HEADER.pack(_MAGIC, _VERSION, zlib.crc32(payload), len(payload))
        folder = self.folder / key
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            # not deleted by itself: it is renamed
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
                try:
                    file.write(header + payload)
                    file.flush()
                    os.rename(file.name, folder / name)
                except BaseException:
                    os.unlink(file.name)
                    raise
