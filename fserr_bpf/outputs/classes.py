"""What kind of news a message is: few classes, for alerts, filters, and journald's MESSAGE_ID."""

from __future__ import annotations

from enum import StrEnum
from errno import ESHUTDOWN

from fserr_bpf.model.event import FsErrorEvent, Lost, OtherEvent, OverflowEvent
from fserr_bpf.outputs.schema import Message
from fserr_bpf.uapi.errno import EFSBADCRC, EFSCORRUPTED


class MessageClass(StrEnum):
    """Each has its section in docs/runbook.md."""

    CORRUPTION = "corruption"
    """What is on disk does not hold: EFSCORRUPTED, EFSBADCRC."""
    IO = "io"
    """Something was not read or not written: EIO, ENOSPC and all others."""
    ENDED = "ended"
    """The file system refuses to go on: ESHUTDOWN."""
    STATE = "state"
    """A file system is not well, or not as it was."""
    CLEARED = "cleared"
    """It is well again, or was at the first look."""
    LOST = "lost"
    """Errors that are in no message, or messages that this output has not got."""


def class_of(message: Message) -> MessageClass:
    """Of any message."""
    match message:
        case FsErrorEvent():
            return _of_error(abs(message.error))
        case OverflowEvent() | OtherEvent() | Lost():
            return MessageClass.LOST
        case _:
            return MessageClass.CLEARED if message.state.ok else MessageClass.STATE


def _of_error(error: int) -> MessageClass:
    if error in (EFSCORRUPTED, EFSBADCRC):
        return MessageClass.CORRUPTION
    return MessageClass.ENDED if error == ESHUTDOWN else MessageClass.IO
