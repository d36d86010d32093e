"""The one family of errors that a user may see: a cause, a remedy, an exit code.

The command line turns each into one line on standard error and the class's exit
code; everything else that escapes is a bug and shows a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class FserrError(Exception):
    """Something went wrong that the user can understand and act on.

    ``str(error)`` is one line: the cause, then the remedy if there is one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(f"{cause}; {remedy}" if remedy else cause)
        self.cause = cause
        self.remedy = remedy

    def to_json(self) -> dict[str, str]:
        """For the process that is to raise it, see `from_json`."""
        return {"error": type(self).__name__, "cause": self.cause, "remedy": self.remedy}

    @staticmethod
    def from_json(message: Mapping[str, Any]) -> FserrError:
        """The error of a child, to be raised here. A DecodeError has no ``offset`` then."""
        kinds: list[type[FserrError]] = [FserrError, *FserrError.__subclasses__()]
        kind = next(kind for kind in kinds if kind.__name__ == message["error"])
        error = kind.__new__(kind)
        FserrError.__init__(error, message["cause"], message["remedy"])
        return error


class UsageError(FserrError):
    """The command line makes no sense."""

    exit_code = 2


class PrivilegeError(FserrError):
    """Not root, a capability is missing, or the kernel is locked down."""

    exit_code = 3


class KernelError(FserrError):
    """This kernel lacks something that the request cannot do without."""

    exit_code = 4


class BccError(FserrError):
    """bcc is missing, is the wrong package, or could not compile."""

    exit_code = 5


class MarkError(FserrError):
    """A path that does not exist, or whose file system cannot be marked."""

    exit_code = 6


class OutputError(FserrError):
    """The reader went away or the disk is full."""

    exit_code = 7


class AttachError(FserrError):
    """No probe of the wanted stream could be attached."""

    exit_code = 8


class DecodeError(FserrError):
    """Bytes that are not a fanotify or msgpack stream.

    ``offset`` is the position in the stream, in bytes, of the event that could
    not be decoded; everything before it was good.
    """

    exit_code = 9

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"offset {offset}: {reason}")
        self.offset = offset
        self.reason = reason


class LabError(FserrError):
    """A kernel could not be fetched, booted, or ended in an unexpected way."""

    exit_code = 10


class ClientError(FserrError):
    """The client of ``exec`` cannot be started."""

    exit_code = 127
