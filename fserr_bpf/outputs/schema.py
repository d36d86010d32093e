"""Event <-> plain dict: the one schema of JSON and msgpack, see ``docs/schema.md``.

The dicts hold bytes where msgpack has bin; JSON has the same bytes as hexadecimal text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import (
    Address,
    Detail,
    Event,
    EventId,
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    Lost,
    Origin,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.model.state import (
    Condition,
    DeviceErrors,
    FilesystemState,
    RecordedError,
    StateChange,
)
from fserr_bpf.outputs import state as states
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.uapi.dev import Dev

VERSION = 3
_READ = (1, 2, VERSION)  # 1 had no states, 2 neither numbers nor losses
Message = Event | StateChange | Lost
"""What a stream of JSON or msgpack consists of."""

_FSID = re.compile("[0-9a-f]{8}:[0-9a-f]{8}")

_S32 = (-(1 << 31), (1 << 31) - 1)
_U32 = (0, (1 << 32) - 1)
_S64 = (-(1 << 63), (1 << 63) - 1)
_U64 = (0, (1 << 64) - 1)
_U8 = (0, 255)
_NUMBERS = (1, (1 << 64) - 1)


def to_dict(event: Message) -> dict[str, Any]:
    """Return ``event`` in schema version 3; ``v`` is the first key, ``type`` the second."""
    number = None if event.id is None else event.id._asdict()
    return {"v": VERSION, "type": _type(event), "id": number, **_content(event)}


def _type(event: Message) -> str:
    match event:
        case FsErrorEvent():
            return "fs_error"
        case OverflowEvent():
            return "overflow"
        case StateChange():
            return "state"
        case Lost():
            return "lost"
        case OtherEvent():
            return "other"


def _content(event: Message) -> dict[str, Any]:
    match event:
        case FsErrorEvent():
            return _fs_error_dict(event)
        case OverflowEvent():
            return {
                "pid": event.pid,
                "fd": event.fd,
                "pidfd": event.pidfd,
                "extra": _extra_list(event.extra),
                "time_ns": event.time_ns,
            }
        case StateChange():
            return {
                "time_ns": event.time_ns,
                **states.to_dict(event.state),
                "before": None if event.before is None else str(event.before),
                "not_seen": list(event.not_seen),
            }
        case Lost():
            return {
                "first": event.first,
                "last": event.last,
                "errors": event.errors,
                "time_ns": event.time_ns,
            }
        case OtherEvent():
            return {
                "mask": event.mask,
                "pid": event.pid,
                "fd": event.fd,
                "extra": _extra_list(event.extra),
            }


def _fs_error_dict(event: FsErrorEvent) -> dict[str, Any]:
    handle, origin = event.handle, event.origin
    return {
        "fsid": str(event.fsid),
        "handle": None if handle is None else handle._asdict(),
        "error": event.error,
        "errno": errno_name(event.error),
        "error_count": event.error_count,
        "pid": event.pid,
        "fd": event.fd,
        "pidfd": event.pidfd,
        "extra": _extra_list(event.extra),
        "origin": None if origin is None else _origin_dict(origin),
    }


def _origin_dict(origin: Origin) -> dict[str, Any]:
    address, detail = origin.address, origin.detail
    lists = (
        {}
        if detail is None
        else {
            "stack": list(detail.stack),
            "mount_points": list(detail.mount_points),
        }
    )
    return origin._asdict() | {
        "dev": list(origin.dev),
        "address": None if address is None else address._asdict(),
        "detail": None if detail is None else detail._asdict() | lists,
    }


def _extra_list(extra: tuple[InfoRecord, ...]) -> list[dict[str, Any]]:
    return [record._asdict() for record in extra]


def from_dict(value: object, offset: int = 0) -> Message:
    """Return the event or state that ``value`` is; keys that it does not know are ignored.

    ``offset`` is where ``value`` began in its stream. Raises DecodeError for another
    version, an unknown type, a missing key, and a value of the wrong type or range.
    """
    top = _Fields(value, "event", offset)
    version = top.integer("v", _U32)
    if version not in _READ:
        raise top.bad("v", f"is {version}, not {VERSION}")
    number = None if top.get("id") is None else _event_id(top.inner("id"))
    match top.text("type"):
        case "state":
            return _state_change(top)._replace(id=number)
        case "lost":
            return _lost(top)._replace(id=number)
        case "fs_error":
            event: Event = _fs_error(top)
        case "overflow":
            event = OverflowEvent(
                pid=top.integer("pid", _S32),
                fd=top.integer("fd", _S32),
                pidfd=top.optional_integer("pidfd", _S32),
                extra=_extra(top),
                time_ns=top.integer("time_ns", _S64),
            )
        case "other":
            event = OtherEvent(
                mask=top.integer("mask", _U64),
                pid=top.integer("pid", _S32),
                fd=top.integer("fd", _S32),
                extra=_extra(top),
            )
        case unknown:
            raise top.bad("type", f"is {unknown[:40]!r}, no type of version {VERSION}")
    try:
        encode(event)
    except ValueError as error:
        raise DecodeError(offset, f"not a fanotify event: {error}") from error
    return event._replace(id=number)


def _fs_error(top: _Fields) -> FsErrorEvent:
    handle = None
    if top["handle"] is not None:
        fields = top.inner("handle")
        handle = FileHandle(fields.integer("handle_type", _S32), fields.binary("f_handle"))
    return FsErrorEvent(
        fsid=top.fsid("fsid"),
        handle=handle,
        error=top.integer("error", _S32),
        error_count=top.integer("error_count", _U32),
        pid=top.integer("pid", _S32),
        fd=top.integer("fd", _S32),
        pidfd=top.optional_integer("pidfd", _S32),
        extra=_extra(top),
        origin=None if top["origin"] is None else _origin(top.inner("origin")),
    )


def _extra(top: _Fields) -> tuple[InfoRecord, ...]:
    return tuple(
        InfoRecord(
            fields.integer("info_type", _U8), fields.integer("pad", _U8), fields.binary("data")
        )
        for fields in (_Fields(item, "extra", top.offset) for item in top.list("extra"))
    )


def _origin(fields: _Fields) -> Origin:
    dev = fields.list("dev")
    if len(dev) != 2:
        raise fields.bad("dev", "is not [major, minor]")
    major, minor = fields.integers("dev", _U32)
    return Origin(
        time_ns=fields.integer("time_ns", _S64),
        dev=Dev(major, minor),
        device=fields.text("device"),
        mount_point=fields.text("mount_point"),
        fstype=fields.text("fstype"),
        ino=fields.integer("ino", _U64),
        generation=fields.integer("generation", _U32),
        tid=fields.integer("tid", _S32),
        comm=fields.text("comm"),
        source=fields.text("source"),
        function=fields.text("function"),
        line=fields.integer("line", _U32),
        failaddr=fields.integer("failaddr", _U64),
        block=fields.integer("block", _U64),
        task_start=fields.integer("task_start", _U64),
        address=_address(fields.inner("address")) if fields.get("address") is not None else None,
        detail=_detail(fields.inner("detail")) if fields.get("detail") is not None else None,
        reason=fields.text("reason") if fields.get("reason") is not None else "",
    )


def _event_id(fields: _Fields) -> EventId:
    return EventId(
        boot_id=fields.text("boot_id"),
        run=fields.integer("run", _U64),
        seq=fields.integer("seq", _NUMBERS),
    )


def _lost(top: _Fields) -> Lost:
    return Lost(
        first=top.integer("first", _NUMBERS),
        last=top.integer("last", _NUMBERS),
        errors=top.integer("errors", _U64),
        time_ns=top.integer("time_ns", _S64),
    )


def state_from_dict(value: object) -> FilesystemState:
    """What ``outputs.state.to_dict`` made a map of. Raises DecodeError for anything else."""
    return _state(_Fields(value, "state", 0))


def _state_change(top: _Fields) -> StateChange:
    before = None if top["before"] is None else top.condition("before")
    missing = top.texts("not_seen") if top.get("not_seen") is not None else ()
    return StateChange(top.integer("time_ns", _S64), _state(top), before, missing)


def _state(top: _Fields) -> FilesystemState:
    major, minor = top.integers("dev", _U32)[:2]
    devices = (_Fields(item, "devices", top.offset) for item in top.list("devices"))
    counts = [name for name in DeviceErrors._fields if name != "device"]
    return FilesystemState(
        dev=Dev(major, minor),
        device=top.text("device"),
        mapper=top.text("mapper"),
        below=top.texts("below"),
        fstype=top.text("fstype"),
        mount_points=top.texts("mount_points"),
        hidden=top["hidden"] is True,
        condition=top.condition("condition"),
        errors=top.integer("errors", _U64),
        first=None if top["first"] is None else _recorded(top.inner("first")),
        last=None if top["last"] is None else _recorded(top.inner("last")),
        devices=tuple(
            DeviceErrors(each.text("device"), *(each.integer(name, _U64) for name in counts))
            for each in devices
        ),
        sick=top.texts("sick"),
        reason=top.text("reason"),
    )


def _recorded(fields: _Fields) -> RecordedError:
    return RecordedError(
        time=fields.integer("time", _U64),
        function=fields.text("function"),
        line=fields.integer("line", _U32),
        error=fields.integer("error", _U32),
        ino=fields.integer("ino", _U64),
        block=fields.integer("block", _U64),
    )


def _address(fields: _Fields) -> Address:
    return Address(
        build_id=fields.text("build_id"),
        module=fields.text("module"),
        section=fields.text("section"),
        offset=fields.integer("offset", _U64),
    )


def _detail(fields: _Fields) -> Detail:
    return Detail(
        kind=fields.text("kind"),
        pos=fields.integer("pos", _U64),
        length=fields.integer("length", _U64),
        stack=fields.integers("stack", _U64),
        name=fields.text("name"),
        name_state=fields.text("name_state"),
        path=fields.text("path"),
        path_state=fields.text("path_state"),
        cgroup=fields.text("cgroup"),
        cgroup_id=fields.integer("cgroup_id", _U64),
        cgroup_of=fields.text("cgroup_of"),
        uuid=fields.text("uuid"),
        label=fields.text("label"),
        mount_points=fields.texts("mount_points"),
        # not in streams of version 1
        kernel_device="" if fields.get("kernel_device") is None else fields.text("kernel_device"),
    )


class _Fields:
    """A map of a message, each key read with its type; every mistake is a DecodeError."""

    def __init__(self, value: object, name: str, offset: int) -> None:
        self.offset = offset
        self._name = name
        if not isinstance(value, Mapping):
            raise DecodeError(offset, f"{name} is {type(value).__name__}, not a map")
        self._value: Mapping[object, object] = value

    def bad(self, key: str, why: str) -> DecodeError:
        return DecodeError(self.offset, f"{self._name} key {key!r} {why}")

    def __getitem__(self, key: str) -> object:
        if key not in self._value:
            raise self.bad(key, "is missing")
        return self._value[key]

    def get(self, key: str) -> object:
        """The value of a key that earlier streams of this version lack; None without it."""
        return self._value.get(key)

    def integer(self, key: str, limits: tuple[int, int]) -> int:
        value = self[key]
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.bad(key, f"is {type(value).__name__}, not an integer")
        if not limits[0] <= value <= limits[1]:
            raise self.bad(key, f"is {value}, not between {limits[0]} and {limits[1]}")
        return value

    def optional_integer(self, key: str, limits: tuple[int, int]) -> int | None:
        return None if self[key] is None else self.integer(key, limits)

    def text(self, key: str) -> str:
        value = self[key]
        if not isinstance(value, str):
            raise self.bad(key, f"is {type(value).__name__}, not text")
        return value

    def binary(self, key: str) -> bytes:
        value = self[key]
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            try:
                return bytes.fromhex(value)
            except ValueError:
                raise self.bad(key, "is not hexadecimal") from None
        raise self.bad(key, f"is {type(value).__name__}, not bytes")

    def list(self, key: str) -> list[object]:
        value = self[key]
        if not isinstance(value, list):
            raise self.bad(key, f"is {type(value).__name__}, not a list")
        return value

    def integers(self, key: str, limits: tuple[int, int]) -> tuple[int, ...]:
        items = [_Fields({key: item}, self._name, self.offset) for item in self.list(key)]
        return tuple(item.integer(key, limits) for item in items)

    def texts(self, key: str) -> tuple[str, ...]:
        items = [_Fields({key: item}, self._name, self.offset) for item in self.list(key)]
        return tuple(item.text(key) for item in items)

    def inner(self, key: str) -> _Fields:
        return _Fields(self[key], f"{self._name} {key}", self.offset)

    def condition(self, key: str) -> Condition:
        text = self.text(key)
        if text not in list(Condition):
            raise self.bad(key, f"is {text[:40]!r}, no condition")
        return Condition(text)

    def fsid(self, key: str) -> Fsid:
        text = self.text(key)
        if not _FSID.fullmatch(text):
            raise self.bad(key, "is not xxxxxxxx:xxxxxxxx")
        return Fsid(int(text[:8], 16), int(text[9:], 16))
