"""A state in words and as a plain dict, see ``docs/schema.md``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fserr_bpf.model.state import FilesystemState, RecordedError, StateChange
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.outputs.text import printable

_HEADER = ("CONDITION", "DEVICE", "TYPE", "MOUNT POINT", "WHAT IS KNOWN")


def to_dict(state: FilesystemState) -> dict[str, Any]:
    """The keys of a state, as JSON and msgpack have them."""
    return {
        "dev": list(state.dev),
        "device": state.device,
        "mapper": state.mapper,
        "below": list(state.below),
        "fstype": state.fstype,
        "mount_points": list(state.mount_points),
        "hidden": state.hidden,
        "condition": str(state.condition),
        "ok": state.ok,
        "errors": state.errors,
        "first": _recorded(state.first),
        "last": _recorded(state.last),
        "devices": [device._asdict() for device in state.devices],
        "sick": list(state.sick),
        "reason": state.reason,
    }


def _recorded(error: RecordedError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return error._asdict() | {"errno": errno_name(error.error) if error.error else ""}


def table(states: Sequence[FilesystemState]) -> str:
    """One line for each, columns as wide as they need to be."""
    rows = [_HEADER, *(_row(state) for state in states)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER) - 1)]
    return "\n".join(
        "  ".join(
            [*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    )


def _row(state: FilesystemState) -> tuple[str, ...]:
    return (
        str(state.condition),
        printable(device_in_words(state)),
        state.fstype,
        printable(state.mount_points[0]) + (" (hidden)" if state.hidden else ""),
        printable(in_words(state)),
    )


def device_in_words(state: FilesystemState) -> str:
    """Its names, and what it stands on."""
    names = f"{state.device} ({state.mapper})" if state.mapper else state.device
    return f"{names} on {', '.join(state.below)}" if state.below else names


def in_words(state: FilesystemState) -> str:
    """What is known beside the condition; "" if nothing is."""
    words = [state.reason] if state.reason else []
    if state.first and state.last:
        words.append(f"{_number(state)}, the first {_error(state.first)}")
        if state.last != state.first:
            words.append(f"the last {_error(state.last)}")
    for device in state.devices:
        counts = ((name, n) for name, n in device._asdict().items() if name != "device" and n)
        if device.total:
            words.append(f"{device.device}: " + " ".join(f"{name} {n}" for name, n in counts))
    return "; ".join(words)


def change_line(change: StateChange) -> str:
    """For a message: which file system, its condition, and the one before if that was another."""
    state, before = change.state, change.before
    place = state.mount_points[0] if state.mount_points else "no mount point"
    where = f"{place} ({state.fstype} on {device_in_words(state)})"
    known = in_words(state)
    was = f", was {before}" if before not in (None, state.condition) else ""
    return printable(f"state of {where}: {state.condition}{was}" + (f"; {known}" if known else ""))


def _number(state: FilesystemState) -> str:
    return f"{state.errors} error" + ("s" if state.errors != 1 else "")


def _error(error: RecordedError) -> str:
    words = [f"{datetime.fromtimestamp(error.time):%Y-%m-%d %H:%M:%S}"]
    if error.function:
        words.append(f"at {error.function}:{error.line}")
    if error.error:
        words.append(errno_name(error.error))
    words += [f"ino {error.ino}"] if error.ino else []
    words += [f"block {error.block}"] if error.block else []
    return " ".join(words)
