"""The process that may wait for a disk: file handles to places, for ``visibility.asking``.

Run as ``python -m fserr_bpf.visibility.worker FD``, FD being one end of a pair of SEQPACKET
sockets. The first question says whom to become: another user without rights, or nobody else
with CAP_DAC_READ_SEARCH, which open_by_handle_at(2) needs. Ends when the other end is closed.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from typing import Any

from fserr_bpf.live.privileges import Capability, drop
from fserr_bpf.model.event import FileHandle
from fserr_bpf.visibility.climb import place_of_handle

MESSAGE_SIZE = 1 << 16


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """``ticket`` of the question with the ``place``, None if it cannot be told."""
    major, minor = question["dev"]
    handle = FileHandle(question["handle_type"], bytes.fromhex(question["f_handle"]))
    try:
        place = place_of_handle(question["mount_point"], (major, minor), handle)
    except OSError:
        place = None
    return {"ticket": question["ticket"], "place": place}


def main(descriptor: int) -> None:
    """Answer until the monitor closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the monitor
    channel = socket.socket(fileno=descriptor)
    channel.send(b"ready")
    first = channel.recv(MESSAGE_SIZE)
    if first:
        drop(json.loads(first)["user"], [Capability.DAC_READ_SEARCH])
    while data := channel.recv(MESSAGE_SIZE):
        channel.send(json.dumps(answer(json.loads(data))).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
