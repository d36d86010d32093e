"""Reading the state file of a service that runs; ``report.py`` makes it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from fserr_bpf.errors import DecodeError
from fserr_bpf.model.state import FilesystemState
from fserr_bpf.outputs.schema import state_from_dict

FOLDER = "/run/fserr-bpf"
"""Where state is kept unless a configuration says otherwise."""
FILE = "state.json"
VERSION = 1
STALE_SECONDS = 180
"""It is written every minute; one that is older is not believed."""


class StateFile(NamedTuple):
    """What a service says: of itself, and of the file systems that it watches."""

    about: Mapping[str, Any]
    states: tuple[FilesystemState, ...]

    def in_words(self) -> str:
        """One line: since when, how much, and what fails."""
        about = self.about
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about["since_ns"] / 1e9))
        failing = [f"; {o['name']} fails: {o['trouble']}" for o in about["outputs"] if o["trouble"]]
        lost = sum(output["lost"] for output in about["outputs"])
        errors, dropped = about["errors"]["seen"], sum(about["errors"]["dropped"].values())
        return (
            f"fserr-bpf[{about['pid']}] watches since {since}: {errors} errors seen, "
            f"{dropped} dropped, {lost} messages lost by outputs" + "".join(failing)
        )


def running_service(folder: str = FOLDER) -> StateFile | None:
    """None without one that runs, or whose file is of another version or old."""
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8") as file:
            value = json.load(file)
        if value["v"] != VERSION or not os.path.exists(f"/proc/{int(value['pid'])}"):
            return None
        if time.time_ns() - value["time_ns"] > STALE_SECONDS * 1_000_000_000:
            return None
        states = tuple(map(state_from_dict, value.pop("file_systems")))
    except (OSError, ValueError, KeyError, TypeError, DecodeError):
        return None
    return StateFile(value, states)
