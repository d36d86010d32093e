"""A file of lines as a target: opened again when asked to."""

from __future__ import annotations

from fserr_bpf.closing import Closing
from fserr_bpf.errors import OutputError
from fserr_bpf.outputs.formats import FORMATS, encoded
from fserr_bpf.outputs.schema import Message
from fserr_bpf.outputs.sink import Sink


class FileTarget(Closing):
    """Appends to ``path``; ``format`` is json or text.

    To be made while the rights are there that opening may need. That it cannot be opened is
    found out by the first message.
    """

    def __init__(self, path: str, form: str) -> None:
        self._path = path
        self._format = FORMATS[form]
        try:
            self._sink: Sink | None = _open(path)
        except OutputError:
            self._sink = None

    def send(self, messages: list[Message]) -> int:
        """All of them in one write, or none. Raises OutputError."""
        if self._sink is None:
            self._sink = _open(self._path)
        self._sink.write([encoded(message, self._format) for message in messages])
        return len(messages)

    def reopen(self) -> None:
        """Follow a renamed file by a new one. Raises OutputError, and goes on with the old one."""
        if self._sink:
            self._sink.reopen()

    def close(self) -> None:
        """Close the file."""
        if self._sink:
            self._sink.close()
            self._sink = None


def _open(path: str) -> Sink:
    sink = Sink(path)
    if sink.has_reader:
        return sink
    raise OutputError(f"{path}: this FIFO has no reader", "start its reader")
