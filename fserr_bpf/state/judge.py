"""From what a file system shows and answers to its state: the worst of what is found. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from fserr_bpf.kernel.mounts import READ_ONLY_TYPES
from fserr_bpf.model.state import Condition
from fserr_bpf.state.ask import Answer
from fserr_bpf.state.signs import Signs
from fserr_bpf.uapi.fsioctl import XFS_SICK

Finding = tuple[Condition, str]
"""A condition and, in words, what it is known by."""

_DEAD = (errno.EIO, errno.ESHUTDOWN)
_ERRORS_RO = 2  # EXT4_ERRORS_RO in fs/ext4/ext4.h
_ABORT = "ext4_journal_check_start"  # finds the journal aborted, in fs/ext4/ext4_jbd2.c


def judge(signs: Signs, answer: Answer | None) -> Finding:
    """The worst finding, the first of equal ones; ``answer`` None: there was none in time."""
    order = list(Condition)
    findings = [*_shown(signs, answer), *_recorded(signs, answer)]
    if not signs.removed:
        findings += _answered(signs, answer)
    return max(findings, key=lambda f: order.index(f[0]), default=(Condition.OK, ""))


def sick_parts(mask: int) -> tuple[str, ...]:
    """The parts that XFS says are damaged; a bit that is newer than we are by its number."""
    bits = (1 << bit for bit in range(32) if mask & 1 << bit)
    return tuple(XFS_SICK.get(bit, f"part {bit:#x}") for bit in bits)


def _shown(signs: Signs, answer: Answer | None) -> Iterator[Finding]:
    """By the mount table and sysfs."""
    if signs.removed:
        yield Condition.GONE, "its device has been removed"
    if "shutdown" in signs.options:
        yield Condition.SHUTDOWN, "its mount options say shutdown"
    if signs.stopped:
        yield _stopped(signs)
    if "emergency_ro" in signs.options:
        yield Condition.READ_ONLY_AFTER_ERROR, "its mount options say emergency_ro"
    if "ro" not in signs.options:
        return
    ext4_says_not = signs.driver == "ext4" and answer is not None and answer.error == 0
    if signs.writable_mount and signs.driver not in (*READ_ONLY_TYPES, "udf") and not ext4_says_not:
        yield Condition.READ_ONLY_AFTER_ERROR, "it is read-only, and its mount is not"
    yield Condition.READ_ONLY, "it is mounted read-only"


def _stopped(signs: Signs) -> Finding:
    asked = ", as was requested" if signs.asked else ""
    read_only = "ro" in signs.options  # it is with errors=remount-ro
    condition = Condition.READ_ONLY_AFTER_ERROR if read_only else Condition.SHUTDOWN
    return condition, f"its checkpoint is stopped{asked}"


def _recorded(signs: Signs, answer: Answer | None) -> Iterator[Finding]:
    """What is on record, or known to be damaged."""
    if signs.errors:
        yield Condition.ERRORS, "the superblock has errors on record"
    if answer is None:
        return
    if answer.sick:
        yield Condition.ERRORS, f"damaged: {', '.join(sick_parts(answer.sick))}"
    if answer.missing:
        yield Condition.ERRORS, f"missing devices: {', '.join(map(str, answer.missing))}"
    if any(device.total for device in answer.devices):
        yield Condition.ERRORS, "errors counted on its devices"


def _answered(signs: Signs, answer: Answer | None) -> Iterator[Finding]:
    """By what it answered, or did not."""
    if answer is None:
        if not signs.hidden:
            yield Condition.UNKNOWN, "it does not answer: its device may hang"
        elif signs.driver in ("ext4", "xfs"):
            yield Condition.UNKNOWN, "no path leads to it: another mount hides it"
        return
    error = answer.error
    if answer.refused:
        yield Condition.UNKNOWN, f"it cannot be asked: {errno.errorcode[answer.refused]}"
    elif error == errno.EROFS:
        yield Condition.READ_ONLY_AFTER_ERROR, "fsync of its root directory fails with EROFS"
    elif error in _DEAD and signs.driver == "f2fs":
        yield _stopped(signs)
    elif error in _DEAD:
        what = "stat" if signs.driver == "xfs" else "fsync"
        name = errno.errorcode[error]
        yield Condition.SHUTDOWN, f"{what} of its root directory fails with {name}"
    elif error:
        yield Condition.UNKNOWN, f"its root directory cannot be asked: {errno.errorcode[error]}"
    elif _made_read_only(signs, answer):
        yield Condition.READ_ONLY_AFTER_ERROR, "an error since the mount, and errors=remount-ro"


def _made_read_only(signs: Signs, answer: Answer) -> bool:
    """ext4 that does not say so. The superblock has seconds only: both may be the same one."""
    if not signs.last or not answer.mounted or signs.last.time < answer.mounted:
        return False
    if signs.last.function == _ABORT:  # whatever errors= says
        return True
    asked = next((o for o in signs.options if o.startswith("errors=")), "")
    return asked == "errors=remount-ro" or (not asked and answer.policy == _ERRORS_RO)
