"""One error of a file's data, and its forms: a line, an object of JSON, a hook's environment."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from fserr_bpf.hooks.hook import Held
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.outputs.text import printable
from fserr_bpf.uapi.dev import Dev

VERSION = 1


class FileError(NamedTuple):
    """``error_count`` errors of one file that merged.

    ``path`` is absolute, of the moment of the error or soon after; with ``deleted`` the last
    one that it had. ``glob`` matched it. ``error`` is positive. ``pos`` and ``length`` are
    bytes, None where they are not known. ``dev`` is (major, minor) of the superblock,
    ``mount_point`` the one that ``path`` goes through. ``pid`` is 0 and ``comm`` "" where no
    process is to be named. ``time_ns`` is CLOCK_REALTIME.
    """

    path: str
    deleted: bool
    glob: str
    kind: str
    error: int
    error_count: int
    pos: int | None
    length: int | None
    ino: int
    generation: int
    dev: Dev
    device: str
    fstype: str
    mount_point: str
    pid: int
    comm: str
    time_ns: int

    @property
    def file(self) -> tuple[object, ...]:
        """Which file it is, whatever its path."""
        return self.dev, self.ino, self.generation

    @property
    def alike(self) -> tuple[object, ...]:
        """What errors have in common that one run of the hook may stand for."""
        return *self.file, self.path, self.error

    @property
    def name(self) -> str:
        """For messages about its hook."""
        return self.path

    def with_errors(self, error_count: int) -> FileError:
        """The same with another count."""
        return self._replace(error_count=error_count)

    def environment(self, held: Held) -> dict[str, str]:
        """What the hook gets besides its own environment; "" is not known."""
        known = {
            "PATH": self.path,
            "DELETED": "1" if self.deleted else "",
            "GLOB": self.glob,
            "KIND": self.kind,
            "ERROR": self.error,
            "ERRNO": errno_name(self.error),
            "COUNT": self.error_count,
            "POS": self.pos,
            "LENGTH": self.length,
            "INO": self.ino,
            "GENERATION": self.generation,
            "DEV": "{}:{}".format(*self.dev),
            "DEVICE": self.device,
            "FSTYPE": self.fstype,
            "MOUNT_POINT": self.mount_point,
            "PID": self.pid or "",
            "COMM": self.comm,
            "TIME": "{}.{:09d}".format(*divmod(self.time_ns, 1_000_000_000)),
            "HELD_COUNT": held.error_count,
            "HELD_FILES": held.files,
        }
        return {f"FSERR_{key}": "" if value is None else str(value) for key, value in known.items()}


def file_error(
    event: FsErrorEvent, path: str, *, deleted: bool, glob: str, mount_point: str
) -> FileError:
    """What ``event``, which has details, says of the file at ``path``."""
    origin = event.origin
    assert origin is not None
    detail = origin.detail
    assert detail is not None
    placed = detail.length > 0  # no request is empty: 0 is not known
    return FileError(
        path=path,
        deleted=deleted,
        glob=glob,
        kind=detail.kind,
        error=abs(event.error),
        error_count=event.error_count,
        pos=detail.pos if placed else None,
        length=detail.length if placed else None,
        ino=origin.ino,
        generation=origin.generation,
        dev=origin.dev,
        device=origin.device,
        fstype=origin.fstype,
        mount_point=mount_point,
        pid=event.pid,
        comm=origin.comm,
        time_ns=origin.time_ns,
    )


def line(error: FileError) -> bytes:
    """For people, with its end; everything that does not print is escaped."""
    seconds, nanoseconds = divmod(error.time_ns, 1_000_000_000)
    time = f"{datetime.fromtimestamp(seconds):%H:%M:%S}.{nanoseconds // 1000:06d}"
    path = printable(error.path) + (" (deleted)" if error.deleted else "")
    place = "" if error.pos is None else f" pos {error.pos} length {error.length}"
    task = f"{printable(error.comm)}[{error.pid}]" if error.comm else "no task"
    name = f"{errno_name(error.error)} {error.error}"
    what = f"{time} {path}: {name} x{error.error_count} {error.kind}{place}"
    return f"{what} ino {error.ino} on {printable(error.device)}, {task}\n".encode()


def json_line(error: FileError) -> bytes:
    """For programs, with its end; bytes of names that are no UTF-8 become lone surrogates."""
    value: dict[str, Any] = {"v": VERSION, "type": "file_error"} | error._asdict()
    value |= {"errno": errno_name(error.error), "dev": list(error.dev)}
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


FORMATS = {"text": line, "json": json_line}
