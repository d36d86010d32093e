"""Looking at mounted file systems: what they show, and what they answer in a given time."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Sequence

from fserr_bpf.children.channel import Channel, channel_pair
from fserr_bpf.children.inherited import keep_only
from fserr_bpf.kernel.blockdev import devices_below, kernel_name, mapper_name
from fserr_bpf.kernel.ext4 import options_tell
from fserr_bpf.model.state import FilesystemState
from fserr_bpf.state.ask import DRIVERS, Answer, Question
from fserr_bpf.state.judge import judge, sick_parts
from fserr_bpf.state.signs import Signs, read_signs
from fserr_bpf.state.superblocks import Superblock
from fserr_bpf.state.worker import answer_of, serve

PATIENCE_SECONDS = 0.1
"""How long answers are waited for. One takes microseconds, a flush of a disk milliseconds."""


def look(found: Iterable[Superblock], patience: float = PATIENCE_SECONDS) -> list[FilesystemState]:
    """The state of each, in ``patience`` seconds. Raises OSError where no process can be had."""
    read = [(superblock, read_signs(superblock)) for superblock in found]
    asked = [question_of(superblock, signs) for superblock, signs in read]
    answers = _answers(asked, patience)
    return [
        state_of(superblock, signs, answer)
        for (superblock, signs), answer in zip(read, answers, strict=True)
    ]


def question_of(superblock: Superblock, signs: Signs) -> Question | Answer | None:
    """What to ask ``superblock``, or its answer if it need not be asked.

    None for one that no path leads to, or whose device is gone.
    """
    if signs.driver == "ext4" and options_tell():
        return Answer(error=0)  # it would say so
    if signs.driver not in DRIVERS:
        return Answer()
    mount = superblock.visible
    if mount is None or signs.removed:
        return None
    # the superblock on the device says more only where it has errors on record
    device = mount.source if signs.errors and mount.source.startswith("/") else ""
    return Question(signs.driver, mount.mount_point, mount.mount_id, "ro" in signs.options, device)


def state_of(superblock: Superblock, signs: Signs, answer: Answer | None) -> FilesystemState:
    """All that is known of ``superblock``; ``answer`` None: it gave none in time."""
    condition, reason = judge(signs, answer)
    block = superblock.block
    devices = answer.devices if answer else ()
    return FilesystemState(
        dev=superblock.dev,
        device=(kernel_name(block) if block else "") or os.path.basename(_source(superblock)),
        mapper=mapper_name(block) if block else "",
        below=devices_below(block) if block else (),
        fstype=superblock.fstype,
        mount_points=tuple(dict.fromkeys(mount.mount_point for mount in superblock.mounts)),
        hidden=superblock.visible is None,
        condition=condition,
        errors=signs.errors + sum(device.total for device in devices),
        first=signs.first,
        last=signs.last,
        devices=devices,
        sick=sick_parts(answer.sick) if answer else (),
        reason=reason,
    )


def _source(superblock: Superblock) -> str:
    return superblock.mounts[0].source


def _answers(asked: Sequence[Question | Answer | None], patience: float) -> list[Answer | None]:
    """By a process of its own, which is left alone if a disk holds it."""
    answers = [each if isinstance(each, Answer) else None for each in asked]
    waiting = {number for number, each in enumerate(asked) if isinstance(each, Question)}
    if not waiting:
        return answers
    ours, theirs = channel_pair()
    if not os.fork():
        try:
            keep_only(theirs.fileno())
            serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        for number in sorted(waiting):
            ours.send({"number": number, "question": asked[number]})
        _collect(ours, waiting, answers, time.monotonic() + patience)
    return answers


def _collect(
    channel: Channel, waiting: set[int], answers: list[Answer | None], deadline: float
) -> None:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            return
        try:
            number, answer = answer_of(channel.receive())
        except EOFError:
            return
        waiting.discard(number)
        answers[number] = answer
