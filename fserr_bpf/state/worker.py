"""A process that asks file systems, one thread for each question: a disk that hangs stops one.

Run as ``python -m fserr_bpf.state.worker FD``, or forked. It ends with the channel.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Any

from fserr_bpf.children.channel import Channel, channel_to_parent
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.privileges import drop
from fserr_bpf.model.state import DeviceErrors
from fserr_bpf.state.ask import Answer, Question, ask


def serve(channel: Channel) -> None:
    """Answer until the other end is closed; questions that are open then are given up."""
    while True:
        try:
            message = channel.receive()
        except EOFError:
            return
        if "user" in message:
            # for a path that its owner alone may enter
            drop(message["user"], () if message["user"] else (Capability.DAC_READ_SEARCH,))
            continue
        threading.Thread(target=_answer, args=(channel, message), daemon=True).start()


def _answer(channel: Channel, message: dict[str, Any]) -> None:
    answer = ask(Question(*message["question"]))
    with contextlib.suppress(OSError):  # nobody waits for it any more
        channel.send({"number": message["number"], "answer": answer})


def answer_of(message: dict[str, Any]) -> tuple[int, Answer]:
    """The number of the question, and the answer."""
    answer = Answer(*message["answer"])
    devices = tuple(DeviceErrors(*device) for device in answer.devices)
    return message["number"], answer._replace(devices=devices, missing=tuple(answer.missing))


def main() -> None:
    """Serve the parent; not even a thread that hangs keeps it."""
    with channel_to_parent(sys.argv[1]) as channel:
        channel.send({"ready": True})
        serve(channel)
    os._exit(0)


if __name__ == "__main__":
    main()
