"""Fanotify events taken apart for people: records, fields, each with its bytes and in words.

Everything here is pure. What is not an event, or too short for its field, stays bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from fserr_bpf.codec.fanotify import FS_ERROR_TYPES, decode
from fserr_bpf.codec.handles import inode_of
from fserr_bpf.codec.info import info_records
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import Event, FileHandle, FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.uapi import exportfs, fanotify, proposed


class Part(NamedTuple):
    """One record of an event: metadata, or an info record with its header.

    ``offset`` is in bytes from the start of the event.
    """

    name: str
    offset: int
    data: bytes


class Decoded(NamedTuple):
    """An event in words, and the records that its bytes are made of."""

    title: str
    parts: list[Part]

    @property
    def data(self) -> bytes:
        """All its bytes."""
        return b"".join(part.data for part in self.parts)


class Field(NamedTuple):
    """One field; ``offset`` is in bytes from the start of the event, ``value`` in words."""

    name: str
    offset: int
    data: bytes
    value: str


def events(stream: bytes) -> Iterator[Decoded]:
    """Yield the events of ``stream``; from where it cannot be decoded it is one of bytes."""
    start = 0
    while start < len(stream):
        try:
            event, end = decode(stream, start)
        except DecodeError as error:
            yield Decoded(f"not an event ({error})", [Part("bytes", 0, stream[start:])])
            return
        yield Decoded(f"{_in_words(event)}, {end - start} bytes", list(_parts(stream, start, end)))
        start = end


def fields(part: Part) -> Iterator[Field]:
    """Yield the fields of a record in order; together they have all its bytes."""
    at = 0
    for name, size, words in _layout(part):
        data = part.data[at : at + size]
        if len(data) < size:
            break
        yield Field(name, part.offset + at, data, words(data))
        at += size
    if rest := part.data[at:]:
        known = part.name in _LAYOUTS
        yield Field("rest" if known else "data", part.offset + at, rest, "")


def _parts(stream: bytes, start: int, end: int) -> Iterator[Part]:
    info = start + fanotify.METADATA.unpack_from(stream, start)[3]  # metadata_len
    yield Part(_METADATA, 0, stream[start:info])
    for located in info_records(stream, info, end, start, 0):
        number = located.record.info_type
        yield Part(_TYPES.get(number, f"type {number}"), located.at - start, located.whole)


def _in_words(event: Event) -> str:
    if isinstance(event, OverflowEvent):
        return "FAN_Q_OVERFLOW"
    if not isinstance(event, FsErrorEvent):
        return f"mask {event.mask:#x}, pid {event.pid}"
    place = _handle_in_words(event.handle) if event.handle else "superblock"
    return f"{errno_name(event.error)} {event.error} x{event.error_count}, {place}, pid {event.pid}"


def _handle_in_words(handle: FileHandle) -> str:
    inode = inode_of(handle)
    if inode is None:
        return f"handle of type {handle.handle_type:#x}"
    subvolume = f" root {inode.subvolume}" if inode.subvolume else ""
    return f"ino {inode.ino} gen {inode.generation}{subvolume}"


def _number(layout: str, words: Callable[[int], str] = str) -> Callable[[bytes], str]:
    unpack = Struct(f"<{layout}").unpack

    def in_words(data: bytes) -> str:
        (number,) = unpack(data)
        return words(number)

    return in_words


def _named(names: dict[int, str], otherwise: Callable[[int], str]) -> Callable[[int], str]:
    def in_words(number: int) -> str:
        return f"{otherwise(number)} {names[number]}" if number in names else otherwise(number)

    return in_words


def _or_errno(number: int) -> str:
    """A descriptor, or the error that there is instead of one (FAN_REPORT_FD_ERROR)."""
    return f"{number} {errno_name(number)}" if number < 0 else str(number)


_METADATA = "metadata"
_FID, _PIDFD, _ERROR = (
    FS_ERROR_TYPES[number][0]
    for number in (
        fanotify.FAN_EVENT_INFO_TYPE_FID,
        fanotify.FAN_EVENT_INFO_TYPE_PIDFD,
        fanotify.FAN_EVENT_INFO_TYPE_ERROR,
    )
)
_MASKS = {fanotify.FAN_FS_ERROR: "FAN_FS_ERROR", fanotify.FAN_Q_OVERFLOW: "FAN_Q_OVERFLOW"}
_DETAIL, _LOCATION = "DETAILED", "LOCATION"
_TYPES = {number: name for number, (name, _) in FS_ERROR_TYPES.items()} | {
    proposed.FAN_EVENT_INFO_TYPE_DETAILED_ERROR: _DETAIL,
    proposed.FAN_EVENT_INFO_TYPE_ERROR_LOCATION: _LOCATION,
}
_KINDS = {int(kind): kind.name for kind in proposed.ErrorKind}
_HANDLES = {number: name for name, number in vars(exportfs).items() if name.startswith("FILEID_")}


def _fd(number: int) -> str:
    return "-1 FAN_NOFD" if number == fanotify.FAN_NOFD else _or_errno(number)


def _pidfd(number: int) -> str:
    names = {fanotify.FAN_NOPIDFD: "FAN_NOPIDFD", fanotify.FAN_EPIDFD: "FAN_EPIDFD"}
    return f"{number} {names[number]}" if number in names else _or_errno(number)


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="backslashreplace")


_Layout = tuple[tuple[str, int, Callable[[bytes], str]], ...]
_HEADER: _Layout = (
    ("info_type", 1, _number("B", _named(_TYPES, str))),
    ("pad", 1, _number("B")),
    ("len", 2, _number("H")),
)
# include/uapi/linux/fanotify.h: the structures behind the names; docs/proposed-stream.md
_LAYOUTS: dict[str, _Layout] = {
    _METADATA: (
        ("event_len", 4, _number("I")),
        ("vers", 1, _number("B")),
        ("reserved", 1, _number("B")),
        ("metadata_len", 2, _number("H")),
        ("mask", 8, _number("Q", _named(_MASKS, hex))),
        ("fd", 4, _number("i", _fd)),
        ("pid", 4, _number("i")),
    ),
    _FID: (
        *_HEADER,
        ("fsid", 8, lambda data: str(Fsid(*Struct("<II").unpack(data)))),
        ("handle_bytes", 4, _number("I")),
        ("handle_type", 4, _number("i", _named(_HANDLES, hex))),
    ),
    _PIDFD: (*_HEADER, ("pidfd", 4, _number("i", _pidfd))),
    _ERROR: (
        *_HEADER,
        ("error", 4, _number("i", lambda error: f"{error} {errno_name(error)}")),
        ("error_count", 4, _number("I")),
    ),
    _DETAIL: (
        *_HEADER,
        ("kind", 4, _number("I", _named(_KINDS, str))),
        ("pos", 8, _number("Q")),
        ("length", 8, _number("Q")),
        ("block", 8, _number("Q", hex)),
        ("failaddr", 8, _number("Q", hex)),
    ),
    _LOCATION: (*_HEADER, ("line", 4, _number("I"))),
}
_FUNCTION_AT = fanotify.INFO_HEADER.size + proposed.ERROR_LOCATION.size
_HANDLE_AT = fanotify.INFO_FID.size


def _layout(part: Part) -> _Layout:
    """The fields of ``part``; its last may have the length that is left, or that it says."""
    if part.name == "bytes":
        return ()
    layout = _LAYOUTS.get(part.name, _HEADER)
    if part.name == _LOCATION and len(part.data) > _FUNCTION_AT:
        return (*layout, ("function", len(part.data) - _FUNCTION_AT, _text))
    if part.name != _FID or len(part.data) < _HANDLE_AT + exportfs.FILE_HANDLE.size:
        return layout
    length, handle_type = exportfs.FILE_HANDLE.unpack_from(part.data, _HANDLE_AT)

    def words(data: bytes) -> str:
        return _handle_in_words(FileHandle(handle_type, data)) if data else "none"

    return (*layout, ("f_handle", length, words))
