"""The helper process: paths of file handles and cgroups, for ``names.helper``.

Run as ``python -m fserr_bpf.names.worker FD``, FD being one end of a pair of SEQPACKET
sockets. The first question says whom to become: another user without rights, or nobody else
with CAP_DAC_READ_SEARCH alone, which open_by_handle_at(2) needs. Ends when the other end is
closed.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from typing import Any

from fserr_bpf.live.privileges import Capability, drop
from fserr_bpf.model.event import FileHandle, PathState
from fserr_bpf.names.cgroups import cgroup_path
from fserr_bpf.names.helper import MESSAGE_SIZE
from fserr_bpf.names.paths import path_of, search


def answer(question: dict[str, Any]) -> dict[str, Any] | None:
    """``question`` with what was found; None for one that wants no answer.

    Its key ``what`` is "path", "cgroup" or "user"; an OSError comes back as ``reason``.
    """
    match question["what"]:
        case "user":
            drop(question["user"], [Capability.DAC_READ_SEARCH])
            return None
        case "cgroup":
            try:
                return question | {"path": cgroup_path(question["id"])}
            except OSError as error:
                return question | {"path": "", "reason": str(error)}
    major, minor = question["dev"]
    handle = FileHandle(question["handle_type"], bytes.fromhex(question["f_handle"]))
    try:
        found = path_of(question["mount_point"], (major, minor), handle, question["name"])
        if found.state == PathState.UNKNOWN and question.get("below"):
            found = search(question["below"], (major, minor), handle, question["ino"])
    except OSError as error:
        return question | {"path": "", "state": PathState.UNKNOWN, "reason": str(error)}
    return question | {"path": found.path, "state": found.state}


def main(descriptor: int) -> None:
    """Answer until the monitor closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the monitor
    channel = socket.socket(fileno=descriptor)
    while data := channel.recv(MESSAGE_SIZE):
        if found := answer(json.loads(data)):
            channel.send(json.dumps(found).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
