"""A message as flat names and values: the fields of journald, the environment of hooks.

docs/service.md has the table.
"""

from __future__ import annotations

from typing import Any

from fserr_bpf.model.event import EventId, FsErrorEvent, Lost, Origin, OtherEvent, OverflowEvent
from fserr_bpf.model.state import StateChange
from fserr_bpf.outputs.classes import class_of
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.outputs.schema import Message
from fserr_bpf.outputs.state import change_line
from fserr_bpf.outputs.text import line as event_line
from fserr_bpf.outputs.text import lost_line, printable


def in_words(message: Message) -> str:
    """One line without a time, for who has that already."""
    match message:
        case StateChange():
            return change_line(message)
        case Lost():
            return lost_line(message).partition(" ")[2]
        case FsErrorEvent():
            return _error_in_words(message)
        case _:
            return event_line(message).partition(" ")[2]


def _error_in_words(event: FsErrorEvent) -> str:
    origin = event.origin
    name = f"{errno_name(event.error)} {event.error} x{event.error_count}"
    if origin is None:
        return f"{name} on fsid {event.fsid}"
    where = f"{printable(origin.mount_point)} ({origin.fstype} on {printable(origin.device)})"
    inode = f", ino {origin.ino}" if origin.ino else ""
    place = f" at {printable(origin.function)}:{origin.line}" if origin.function else ""
    task = f", {printable(origin.comm)}[{event.pid}]" if origin.comm else ""
    path = f", {printable(origin.detail.path)}" if origin.detail and origin.detail.path else ""
    reason = f" ({printable(origin.reason)})" if origin.reason else ""
    return f"{name} on {where}{inode}{path}{place}{reason}{task}"


def fields_of(message: Message) -> dict[str, str]:
    """Names with the prefix FSERR_; what is not known is left out."""
    known: dict[str, Any] = {"CLASS": class_of(message), "MESSAGE": in_words(message)}
    if isinstance(message.id, EventId):
        known |= {"BOOT_ID": message.id.boot_id, "RUN": message.id.run, "SEQ": message.id.seq}
    match message:
        case FsErrorEvent():
            known |= {
                "ERROR": message.error,
                "ERRNO": errno_name(message.error),
                "COUNT": message.error_count,
                "FSID": message.fsid,
                "PID": message.pid or "",
            }
            known |= _of_origin(message.origin) if message.origin else {}
        case StateChange():
            state = message.state
            known |= {
                "TIME": _seconds(message.time_ns),
                "CONDITION": state.condition,
                "BEFORE": message.before or "",
                "DEVICE": state.device,
                "DEV": "{}:{}".format(*state.dev),
                "FSTYPE": state.fstype,
                "MOUNT_POINT": state.mount_points[0] if state.mount_points else "",
                "REASON": state.reason,
            }
        case Lost():
            known |= {"FIRST": message.first, "LAST": message.last, "COUNT": message.errors}
        case OverflowEvent() | OtherEvent():
            pass
    texts = {f"FSERR_{key}": str(value) for key, value in known.items()}
    return {key: text for key, text in texts.items() if text}


def _of_origin(origin: Origin) -> dict[str, Any]:
    detail = origin.detail
    known: dict[str, Any] = {
        "TIME": _seconds(origin.time_ns),
        "DEVICE": origin.device,
        "DEV": "{}:{}".format(*origin.dev),
        "FSTYPE": origin.fstype,
        "MOUNT_POINT": origin.mount_point,
        "INO": origin.ino or "",
        "GENERATION": origin.generation if origin.ino else "",
        "BLOCK": origin.block or "",
        "COMM": origin.comm,
        "FUNCTION": origin.function,
        "LINE": origin.line or "",
        "SOURCE": origin.source,
        "REASON": origin.reason,
    }
    if detail:
        known |= {"KIND": detail.kind, "PATH": detail.path, "CGROUP": detail.cgroup}
    return known


def _seconds(time_ns: int) -> str:
    return "{}.{:09d}".format(*divmod(time_ns, 1_000_000_000))
