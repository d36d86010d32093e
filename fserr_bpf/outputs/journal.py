"""journald's native protocol: datagrams of fields, see systemd.io/JOURNAL_NATIVE_PROTOCOL.

Sixty lines of our own: systemd-python has to be built, and its C extension does the same.
"""

from __future__ import annotations

import socket
from struct import Struct

from fserr_bpf.closing import Closing
from fserr_bpf.outputs.classes import MessageClass, class_of
from fserr_bpf.outputs.fields import fields_of
from fserr_bpf.outputs.schema import Message

IDENTIFIER = "fserr-bpf"
MESSAGE_IDS = {
    MessageClass.CORRUPTION: "4e8b1d0a7c5f43d59a4b6a3c7a1f2e01",
    MessageClass.IO: "4e8b1d0a7c5f43d59a4b6a3c7a1f2e02",
    MessageClass.ENDED: "4e8b1d0a7c5f43d59a4b6a3c7a1f2e03",
    MessageClass.STATE: "4e8b1d0a7c5f43d59a4b6a3c7a1f2e04",
    MessageClass.CLEARED: "4e8b1d0a7c5f43d59a4b6a3c7a1f2e05",
    MessageClass.LOST: "4e8b1d0a7c5f43d59a4b6a3c7a1f2e06",
}
"""One for each class, as in packaging/fserr-bpf.catalog; never changed."""
_PRIORITIES = {  # of syslog(3)
    MessageClass.CORRUPTION: 2,
    MessageClass.IO: 3,
    MessageClass.ENDED: 2,
    MessageClass.STATE: 3,
    MessageClass.CLEARED: 5,
    MessageClass.LOST: 4,
}
_LENGTH = Struct("<Q")


def encode(message: Message) -> bytes:
    """The datagram of a message."""
    kind = class_of(message)
    fields = fields_of(message)
    text = fields.pop("FSERR_MESSAGE")
    whole = {
        "MESSAGE": text,
        "MESSAGE_ID": MESSAGE_IDS[kind],
        "PRIORITY": str(_PRIORITIES[kind]),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        **fields,
    }
    return b"".join(_field(name, value) for name, value in whole.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), _LENGTH.pack(len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)


class JournalSocket(Closing):
    """A target. journald may come and go: each attempt connects anew if the last one failed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, messages: list[Message]) -> int:
        """The first message; waits while journald has no room. Raises OSError."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            # a name each time: journald that was restarted has another socket there
            self._socket.sendto(encode(messages[0]), self._path)
        except OSError:
            self.close()
            raise
        return 1

    def reopen(self) -> None:
        """The next message goes to whoever listens then."""
        self.close()

    def close(self) -> None:
        """Release the socket."""
        if self._socket:
            self._socket.close()
            self._socket = None
