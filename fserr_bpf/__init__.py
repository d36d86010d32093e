"""FAN_FS_ERROR events, byte for byte, from stock unpatched Linux kernels.

``Monitor`` watches a running kernel (root, Debian's bcc); ``fserr_bpf.codec``
reads and writes the bytes anywhere.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fserr_bpf.model.event import Event, FileHandle, FsErrorEvent, Fsid, OverflowEvent
    from fserr_bpf.model.mark import Mark, MarkKind, SuperblockErrors
    from fserr_bpf.model.stream import Stream
    from fserr_bpf.monitor import Monitor

__version__ = "0.2.0"
__all__ = [
    "Event",
    "FileHandle",
    "FsErrorEvent",
    "Fsid",
    "Mark",
    "MarkKind",
    "Monitor",
    "OverflowEvent",
    "Stream",
    "SuperblockErrors",
]

_HOME = {
    "Mark": "fserr_bpf.model.mark",
    "MarkKind": "fserr_bpf.model.mark",
    "Monitor": "fserr_bpf.monitor",
    "Stream": "fserr_bpf.model.stream",
    "SuperblockErrors": "fserr_bpf.model.mark",
}


def __getattr__(name: str) -> object:
    # on demand: the compiler and users of the codec alone need none of it
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "fserr_bpf.model.event")), name)
