"""The file of ``run --config``: TOML, its keys those of the options; see docs/service.md."""

from __future__ import annotations

import os
import stat
from importlib.resources import files
from typing import TypeVar

from fserr_bpf.errors import UsageError
from fserr_bpf.model.mark import Mark, SuperblockErrors, mark_of
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.classes import MessageClass
from fserr_bpf.service.description import (
    QUEUE,
    Description,
    EventSocket,
    File,
    Full,
    Hook,
    Journal,
    Prometheus,
    Queueing,
    Service,
)
from fserr_bpf.service.keys import Table, parse
from fserr_bpf.service.statefile import FOLDER

T = TypeVar("T", Stream, SuperblockErrors, Full)
_QUEUE_MOST = 1 << 20
_LONGEST = 86400.0
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_TOP = (
    "paths, mark, ignore, superblock-errors, all-namespaces, cgroup, container, stream, detail, "
    "user, state, journal, file, socket, hook, prometheus"
)
_QUEUEING = "classes, queue, drop"


def example() -> str:
    """A file with every key, commented."""
    return files("fserr_bpf.service").joinpath("example.toml").read_text()


def read(path: str) -> Description:
    """What the file at ``path`` describes.

    Raises UsageError, with line and key for a mistake in it. A file with hooks has to be as
    safe as what they run.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{path}: {why}", "name a readable TOML file") from error
    description = _description(path, parse(path, text))
    if description.service and any(isinstance(o, Hook) for o in description.service.outputs):
        check_owned(path)
    return description


def _description(path: str, top: Table) -> Description:
    paths, marks = top.texts("paths"), top.texts("mark")
    marked: list[Mark] = [*map(Mark.filesystem, paths or ())]
    marked += top.convert("mark", lambda each: [mark_of(text) for text in each], marks or [])
    if paths is not None and not marked:
        raise top.error("paths", "is empty", "leave it out for all file systems")
    cgroup, container = top.take("cgroup", str), top.take("container", str)
    if cgroup is not None and container is not None:
        raise top.error("container", "and cgroup exclude each other", "leave one out")
    ignore = top.texts("ignore") or []
    description = Description(
        marks=tuple(marked) or None,
        ignore=tuple(top.convert("ignore", lambda each: [mark_of(t) for t in each], ignore)),
        superblock=_choice(top, "superblock-errors", SuperblockErrors.FILESYSTEM),
        all_namespaces=top.take("all-namespaces", bool, False),
        cgroup=cgroup,
        container=container,
        stream=_choice(top, "stream", Stream.PROPOSED),
        detail=top.take("detail", bool, False),
        user=top.take("user", str),
        service=_service(top),
        file=path,
    )
    top.finish(_TOP)
    return description


def _service(top: Table) -> Service:
    folder = top.convert("state", _absolute, top.take("state", str, FOLDER))
    journals = [table for table in [top.table("journal")] if table]
    sockets = [table for table in [top.table("socket")] if table]
    outputs: list[Journal | File | EventSocket | Hook] = [
        *(_journal(table) for table in journals),
        *(_file(table) for table in top.tables("file")),
        *(_socket(table, folder) for table in sockets),
        *(_hook(table) for table in top.tables("hook")),
    ]
    names = [output.name for output in outputs]
    for output in outputs:
        if names.count(output.name) > 1:
            kind = output.name.partition(" ")[0]
            raise top.error(kind, f"names {output.name} twice", "leave one out")
    prometheus = top.table("prometheus")
    return Service(folder, tuple(outputs), _prometheus(prometheus) if prometheus else None)


def _journal(table: Table) -> Journal:
    default = Journal().socket
    socket = table.convert("socket", _absolute, table.take("socket", str, default))
    journal = Journal(_queueing(table), socket)
    table.finish(f"socket, {_QUEUEING}")
    return journal


def _file(table: Table) -> File:
    path = table.convert("path", _absolute, table.take("path", str))
    form = table.take("format", str, "json")
    if form not in ("json", "text"):
        raise table.error("format", f'is "{form}"', "use json or text")
    file = File(path, form, _queueing(table))
    table.finish(f"path, format, {_QUEUEING}")
    return file


def _socket(table: Table, folder: str) -> EventSocket:
    default = os.path.join(folder, "events.sock")
    path = table.convert("path", _absolute, table.take("path", str, default))
    found = EventSocket(path, table.take("group", str), _queueing(table))
    table.finish(f"path, group, {_QUEUEING}")
    return found


def _hook(table: Table) -> Hook:
    command = table.convert("command", _absolute, table.take("command", str))
    table.convert("command", _check_program, command)
    hook = Hook(
        command=command,
        timeout=_seconds(table, "timeout", 30.0),
        interval=_seconds(table, "interval", 0.0),
        user=table.take("user", str),
        queueing=Queueing(classes=_classes(table)),
    )
    table.finish("command, timeout, interval, user, classes")
    return hook


def _prometheus(table: Table) -> Prometheus:
    textfile, listen = table.take("textfile", str), table.take("listen", str)
    prometheus = Prometheus(
        table.convert("textfile", _absolute, textfile) if textfile is not None else None,
        table.convert("listen", _address, listen) if listen is not None else None,
    )
    table.finish("textfile, listen")
    return prometheus


def _queueing(table: Table) -> Queueing:
    queue = table.take("queue", int, QUEUE)
    if not 1 <= queue <= _QUEUE_MOST:
        raise table.error("queue", f"is {queue}", f"use 1 to {_QUEUE_MOST} messages")
    return Queueing(_classes(table), queue, _choice(table, "drop", Full.NEWEST))


def _classes(table: Table) -> frozenset[MessageClass]:
    names = table.texts("classes")
    if names is None:
        return frozenset(MessageClass)
    for name in names:
        if name not in list(MessageClass):
            raise table.error("classes", f'has "{name}"', f"use {', '.join(MessageClass)}")
    return frozenset(map(MessageClass, names))


def _choice(table: Table, key: str, default: T) -> T:
    kind = type(default)
    value = table.take(key, str, default)
    if value not in list(kind):
        raise table.error(key, f'is "{value}"', f"use {', '.join(kind)}")
    return kind(value)


def _seconds(table: Table, key: str, default: float) -> float:
    seconds: float = table.take(key, float, default)
    if not (0 < seconds <= _LONGEST or seconds == default):
        raise table.error(key, f"is {seconds:g}", f"use above 0 and at most {_LONGEST:g} seconds")
    return seconds


def _absolute(path: str | None) -> str:
    if path is None:
        raise ValueError("which it must have")
    if not path.startswith("/"):
        raise ValueError("no absolute path")
    return path


def _address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, the host an IP address; [::1]:9876 for IPv6."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("not HOST:PORT")
    return host.strip("[]"), int(port)


def _check_program(path: str) -> None:
    check_owned(path)
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise UsageError(f"{path} cannot be run", "run chmod +x on it")


def check_owned(path: str) -> None:
    """What runs with our rights must be ours: the file and every folder above it.

    Raises UsageError unless all belong to root or this user, and nobody else may write to them.
    """
    real = os.path.realpath(path)
    above = real
    while True:
        try:
            found = os.stat(above)
        except OSError as error:
            raise UsageError(f"{above}: {error.strerror}", "name a program that exists") from error
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or (
            found.st_mode & _WRITABLE_BY_OTHERS and not sticky
        ):
            raise UsageError(
                f"{above} can be changed by others than root",
                "give it to root, with chmod go-w",
            )
        if above == "/":
            return
        above = os.path.dirname(above)
