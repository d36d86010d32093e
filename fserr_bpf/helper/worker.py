"""The helper process: answers the questions of ``helper.client``.

The first message says whom to become: another user without rights, or nobody else with
CAP_DAC_READ_SEARCH, which open_by_handle_at(2) needs, and where paths lead through
``/proc/PID/root`` CAP_SYS_PTRACE. With it comes a channel for each
kind of question, in the order of `Kind`. Ends when the other ends are closed.

Questions of one kind are answered in order, those of another kind at the same time, by a thread
of its own: a path on a broken disk may take for ever, and a place is waited for a second only.
A process of its own would cost 7 MB more. Python's lock is no hindrance: it is given back around
every system call, so that a place comes some milliseconds later beside a flood of paths.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from fserr_bpf.children.channel import Channel, channel_to_parent
from fserr_bpf.helper.ancestors import place_of_handle
from fserr_bpf.helper.paths import Path, path_of, search
from fserr_bpf.helper.questions import Kind, object_of
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.cgroups import cgroup_path
from fserr_bpf.kernel.privileges import drop
from fserr_bpf.marks.rules import Place
from fserr_bpf.model.event import PathState

Question = dict[str, Any]


def _path(question: Question) -> Path:
    mount_point, dev, handle = object_of(question)
    found = path_of(mount_point, dev, handle, question["name"])
    if found.state == PathState.UNKNOWN and question["below"]:
        return search(question["below"], dev, handle, question["ino"])
    return found


def _place(question: Question) -> Place | None:
    return place_of_handle(*object_of(question))


def _cgroup(question: Question) -> str:
    return cgroup_path(question["id"])


_LOOK_UPS: dict[Kind, Callable[[Question], object]] = {
    Kind.PATH: _path,
    Kind.PLACE: _place,
    Kind.CGROUP: _cgroup,
}


def _answer(kind: Kind, question: Question) -> dict[str, Any]:
    found, reason = None, ""
    try:
        found = _LOOK_UPS[kind](question)
    except OSError as error:
        reason = str(error)
    return {"number": question["number"], "found": found, "reason": reason}


def _serve(kind: Kind, channel: Channel) -> None:
    try:
        while True:
            channel.send(_answer(kind, channel.receive()))
    finally:
        os._exit(1)  # the monitor has gone, or must hear that nobody answers


def main(descriptor: str) -> None:
    """Answer until the monitor closes its ends."""
    for number in (signal.SIGINT, signal.SIGHUP):  # for the monitor
        signal.signal(number, signal.SIG_IGN)
    channel = channel_to_parent(descriptor)
    channel.send({"ready": True})
    with contextlib.suppress(EOFError):
        message, descriptors = channel.receive_descriptors()
        # rights are those of a thread: the others are to begin without
        processes = [Capability.SYS_PTRACE] if message["processes"] else []
        drop(message["user"], [Capability.DAC_READ_SEARCH, *processes])
        for kind, end in zip(Kind, descriptors, strict=True):
            threading.Thread(target=_serve, args=(kind, Channel.of(end)), daemon=True).start()
        channel.receive()
    os._exit(0)  # also while a thread waits for a disk


if __name__ == "__main__":
    main(sys.argv[1])
