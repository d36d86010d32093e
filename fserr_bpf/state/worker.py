"""A process that asks file systems, one thread for each question: a disk that hangs stops one.

It is forked for some questions and ends with the last answer. Forking costs some milliseconds,
needs no file that a monitor without rights may not read, and lets nothing wait in between.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from fserr_bpf.children.channel import Channel
from fserr_bpf.children.inherited import keep_only
from fserr_bpf.model.state import DeviceErrors
from fserr_bpf.state.ask import Answer, Question, ask


class Asked(NamedTuple):
    """A question, the number that its answer will have, and the answer that is no news."""

    number: int
    question: Question
    expected: Answer | None = None


def ask_aside(asked: Sequence[Asked], answers: Channel) -> int:
    """Have ``asked`` answered to the other end of ``answers``; the number of the process.

    What is as expected is not sent. Raises OSError where no process can be had.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        keep_only(answers.fileno())
        threads = [threading.Thread(target=_answer, args=(one, answers)) for one in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = 0
    finally:
        os._exit(status)


def _answer(asked: Asked, answers: Channel) -> None:
    answer = ask(asked.question)
    if answer != asked.expected:
        with contextlib.suppress(OSError):  # nobody waits for it any more
            answers.send({"number": asked.number, "answer": answer})


def answer_of(message: dict[str, Any]) -> tuple[int, Answer]:
    """The number of the question, and the answer."""
    answer = Answer(*message["answer"])
    devices = tuple(DeviceErrors(*device) for device in answer.devices)
    return message["number"], answer._replace(devices=devices, missing=tuple(answer.missing))
