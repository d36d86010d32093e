"""Looking at mounted file systems: what they show, and what they answer while one has patience."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Sequence

from fserr_bpf.children.channel import Channel, channel_pair
from fserr_bpf.kernel.blockdev import completed, devices_below, kernel_name, mapper_name
from fserr_bpf.kernel.ext4 import options_tell
from fserr_bpf.model.state import FilesystemState
from fserr_bpf.state.ask import DRIVERS, Answer, Question
from fserr_bpf.state.judge import judge, sick_parts
from fserr_bpf.state.patience import LOOK_SECONDS, Patience
from fserr_bpf.state.signs import Signs, read_signs
from fserr_bpf.state.superblocks import Superblock
from fserr_bpf.state.worker import Asked, answer_of, ask_aside

PATIENCE_SECONDS = 0.1
"""How long a disk may keep an answer. One takes microseconds, a flush of a disk milliseconds."""


def look(found: Iterable[Superblock], patience: float = PATIENCE_SECONDS) -> list[FilesystemState]:
    """The state of each; ``patience`` as `Patience`. Raises OSError where no process can be had."""
    read = [(superblock, read_signs(superblock)) for superblock in found]
    asked = [question_of(superblock, signs) for superblock, signs in read]
    before = [completed(superblock.block) for superblock, _ in read]
    answers = _answers(asked, patience)
    for number, (superblock, signs) in enumerate(read):
        if answers[number] is None and isinstance(asked[number], Question):
            works = completed(superblock.block) != before[number]
            answers[number] = _while_it_works(signs) if works else None
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


def _while_it_works(signs: Signs) -> Answer | None:
    """For one whose disk has no time for the answer, but for other requests.

    An ext4 that is dead would have said so before it asked its disk (``ext4_sync_file()``).
    """
    return Answer(error=0) if signs.driver == "ext4" else None


def _answers(asked: Sequence[Question | Answer | None], patience: float) -> list[Answer | None]:
    """By a process of its own, which is left alone if a disk holds it."""
    answers = [each if isinstance(each, Answer) else None for each in asked]
    questions = [
        Asked(number, each) for number, each in enumerate(asked) if isinstance(each, Question)
    ]
    if questions:
        ours, theirs = channel_pair()
        with ours:
            with theirs:
                process = ask_aside(questions, theirs)
            waiting = {one.number for one in questions}
            _collect(ours, waiting, answers, Patience(process, patience))
    return answers


def _collect(
    channel: Channel, waiting: set[int], answers: list[Answer | None], patience: Patience
) -> None:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    while waiting:
        if not poll.poll(LOOK_SECONDS * 1000):
            if patience.is_over():
                return
            continue
        try:
            number, answer = answer_of(channel.receive())
        except EOFError:
            return
        waiting.discard(number)
        answers[number] = answer
