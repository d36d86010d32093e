r"""One line per event, for people.

Columns that usually fit are padded so that lines align; a longer value pushes the rest
of its line to the right, nothing is cut off. Names come from disks and processes that
may be hostile: everything that does not print, and the backslash, is escaped (``\x1b``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from fserr_bpf.codec.handles import inode_of
from fserr_bpf.codec.proposed import read_detailed_error, read_error_location
from fserr_bpf.model.event import (
    Detail,
    Event,
    FileHandle,
    FsErrorEvent,
    InfoRecord,
    Lost,
    Origin,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.uapi.proposed import (
    FAN_EVENT_INFO_TYPE_DETAILED_ERROR,
    FAN_EVENT_INFO_TYPE_ERROR_LOCATION,
    ErrorKind,
)

_PROPOSED = {FAN_EVENT_INFO_TYPE_DETAILED_ERROR, FAN_EVENT_INFO_TYPE_ERROR_LOCATION}
_NO_TIME = "--:--:--.------"
_SUSPECT = re.compile(r"[^!-\[\]-~]")


def line(event: Event) -> str:
    """Return ``event`` as one line of printable text, without a newline."""
    if isinstance(event, FsErrorEvent):
        return _fs_error(event)
    if isinstance(event, OverflowEvent):
        time = _time(event.time_ns) if event.time_ns else _NO_TIME
        more = _extra(event.extra)
        return f"{time} FAN_Q_OVERFLOW: the queue was full, events are missing here{more}"
    return _other(event)


def _fs_error(event: FsErrorEvent) -> str:
    origin = event.origin
    error = f"{errno_name(event.error)} {event.error}"
    if origin is None:
        time, place = _NO_TIME, f"fsid {event.fsid}"
        task, site = f"pid {event.pid}", ""
    else:
        time = _time(origin.time_ns)
        place = f"{printable(origin.device):<6} {printable(origin.mount_point)}"
        # pid 0: an interrupt, or a task outside of our pid namespace
        task = f"{printable(origin.comm)}[{event.pid}]"
        if not origin.comm:
            task = f"pid {event.pid}" if event.pid else "no task"
        site = f"{_function(origin)} {printable(origin.source)}"
        site += f" ({printable(origin.reason)})" if origin.reason else ""
    inode = _inode(event.handle, origin)
    columns = f"{time} {place:<22} {error:<16} x{event.error_count:<3} {inode:<24} {task:<14} "
    detail = _detail(origin.detail) if origin and origin.detail else ""
    extra = [record for record in event.extra if not (detail and record.info_type in _PROPOSED)]
    return (columns + site).rstrip() + detail + _extra(extra)


def _other(event: OtherEvent) -> str:
    return f"{_NO_TIME} mask {event.mask:#x} fd {event.fd} pid {event.pid}{_extra(event.extra)}"


def _extra(extra: Iterable[InfoRecord]) -> str:
    return "".join(f"  {_info(record)}" for record in extra)


def _info(record: InfoRecord) -> str:
    """A record of the proposal in words, any other in hexadecimal."""
    if detail := read_detailed_error(record):
        words = zip(detail._fields[1:4], detail[1:4], strict=True)
        known = "".join(f" {name} {value}" for name, value in words if value)
        address = f" failaddr {detail.failaddr:#x}" if detail.failaddr else ""
        return f"kind {_kind(detail.kind)}{known}{address}"
    if location := read_error_location(record):
        return f"in {printable(location.function)}:{location.line}".removesuffix(":0")
    return f"info {record.info_type} {record.data.hex() or '-'}"


def _kind(number: int) -> str:
    return ErrorKind(number).name if number in set(ErrorKind) else str(number)


def _detail(detail: Detail) -> str:
    """What ``--detail`` adds, behind two spaces; what is not known is left out."""
    where = ""
    if detail.path:
        where = f"{detail.path} ({detail.path_state})"
    elif detail.name_state:
        where = f"{detail.name or '/'} ({detail.name_state})"
    numbers = [("pos", detail.pos), ("length", detail.length)]
    words = [printable(detail.kind), *(f"{name} {value}" for name, value in numbers if value)]
    words += [printable(where)] if where else []
    if detail.cgroup or detail.cgroup_id:
        words.append(f"cgroup {printable(detail.cgroup) or detail.cgroup_id}")
    return "  " + ", ".join(words)


def lost_line(lost: Lost) -> str:
    """Return the loss of one reader as one line, without a newline."""
    numbers = f"{lost.first}" if lost.first == lost.last else f"{lost.first} to {lost.last}"
    return f"{_time(lost.time_ns)} lost: messages {numbers}, with {lost.errors} errors"


def _time(time_ns: int) -> str:
    """Local time of day of CLOCK_REALTIME nanoseconds, with microseconds."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds):%H:%M:%S}.{nanoseconds // 1000:06d}"


def _inode(handle: FileHandle | None, origin: Origin | None) -> str:
    if handle is None:
        return f"superblock (ino {origin.ino})" if origin and origin.ino else "superblock"
    inode = inode_of(handle)
    if inode is None:
        return f"handle {handle.handle_type:#x} {handle.f_handle.hex() or '-'}"
    subvolume = f" root {inode.subvolume}" if inode.subvolume else ""
    return f"ino {inode.ino} gen {inode.generation}{subvolume}"


def _function(origin: Origin) -> str:
    if origin.function:
        name = printable(origin.function)
        return f"{name}:{origin.line}" if origin.line else name
    return f"{origin.failaddr:#x}" if origin.failaddr else "-"


def printable(text: str) -> str:
    """Return ``text`` with everything escaped that could forge a line or drive a terminal.

    Undecodable bytes, which Python holds as lone surrogates, come out as the bytes.
    """
    return _SUSPECT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    if character.isprintable() and character != "\\":
        return character
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
