"""The raw streams of a run as files, for ``compare --offline`` and for authors of clients."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import DecodeError, LabError
from fserr_bpf.outputs.schema import to_dict
from fserr_bpf_compare.verdict.cells import Cell, Read

INDEX = "index.json"
_VERSION = 1


def keep(directory: Path, cells: Sequence[Cell]) -> None:
    """Write what each cell's sides read, and an index, into ``directory``.

    Per cell ``KERNEL-SCENARIO.real.bin`` and ``KERNEL-SCENARIO.emulated.bin``; a cell
    that never read gets none. What is in the directory already stays: a cell of the
    same kernel and scenario is replaced, whole file by whole file, and the index keeps
    the others. It is written last. Raises LabError if it is somebody else's or writing fails.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        captures = _earlier(directory / INDEX)
        for cell in cells:
            if cell.real or cell.emulated:
                entry = _entry(cell)
                for side, reads in (("real", cell.real), ("emulated", cell.emulated)):
                    _write(directory / entry[side]["file"], _bytes(reads))
                captures[cell.kernel, cell.scenario] = entry
        index = {"v": _VERSION, "captures": list(captures.values())}
        text = json.dumps(index, indent=1, default=bytes.hex) + "\n"
        _write(directory / INDEX, text.encode())
    except OSError as error:
        raise LabError(
            f"cannot keep captures in {directory}: {error.strerror}", "give another --capture"
        ) from error


def _earlier(index: Path) -> dict[tuple[str, str], dict[str, Any]]:
    try:
        known = json.loads(index.read_bytes())
        if known["v"] != _VERSION:
            raise ValueError(f"version {known['v']}")
        return {(entry["kernel"], entry["scenario"]): entry for entry in known["captures"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{index} is not an index of captures", "give another --capture") from error


def _entry(cell: Cell) -> dict[str, Any]:
    name = f"{_file_name(cell.kernel)}-{_file_name(cell.scenario)}"
    return {
        "kernel": cell.kernel,
        "release": cell.release,
        "scenario": cell.scenario,
        "stream": cell.stream,
        "basis": cell.basis,
        "trigger": cell.trigger,
        "real": _side(f"{name}.real.bin", cell.real),
        "emulated": _side(f"{name}.emulated.bin", cell.emulated),
    }


def _side(file: str, reads: Sequence[Read]) -> dict[str, Any]:
    """How the file was read, and what it means; ``error`` says where it has no meaning."""
    decoder = Decoder()
    events: list[dict[str, Any]] = []
    side: dict[str, Any] = {
        "file": file,
        "reads": [{"size": r.size, "bytes": len(r.data), "errno": r.errno} for r in reads],
        "events": events,
    }
    try:
        events += map(to_dict, decoder.feed(_bytes(reads)))
        decoder.close()
    except DecodeError as error:
        side["error"] = str(error)
    return side


def _bytes(reads: Sequence[Read]) -> bytes:
    return b"".join(read.data for read in reads)


def _file_name(name: str) -> str:
    """``name``, or for a path its last part and a hash that tells it from all others.

    No kernel of the lab and no scenario has a ``~``.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        return name
    last = re.sub(r"[^A-Za-z0-9._+-]", "_", name.rpartition("/")[2]).lstrip(".")
    return f"{last}~{sha256(os.fsencode(name)).hexdigest()[:12]}"


def _write(path: Path, data: bytes) -> None:
    """All of ``data`` under its name, or what was there before."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
