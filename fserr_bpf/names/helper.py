"""The monitor's end of the helper process that looks names up.

A look-up may wait for a broken disk, for ever. So it is another process that waits, the
monitor only asks; what is not answered is not known.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from fserr_bpf.closing import Closing

MESSAGE_SIZE = 1 << 16
_PATIENCE_SECONDS = 1.0


class Helper(Closing):
    """A running helper. ``fileno()`` is readable while answers wait, or when it has ended."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: the current directory is anybody's, and this runs as root
            command = [sys.executable, "-P", "-m", "fserr_bpf.names.worker", str(theirs.fileno())]
            self._child = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to poll for POLLIN."""
        return self._socket.fileno()

    def ask(self, question: dict[str, Any]) -> bool:
        """Send a question for `worker.answer`; False if it has no room for one more now.

        Raises OSError when the helper has ended.
        """
        try:
            self._socket.send(json.dumps(question).encode())
        except BlockingIOError:
            return False
        return True

    def answers(self) -> Iterator[dict[str, Any]]:
        """What it has found since the last call; raises EOFError when it has ended."""
        while True:
            try:
                data = self._socket.recv(MESSAGE_SIZE)
            except BlockingIOError:
                return
            if not data:
                raise EOFError("the process has ended")
            answer: dict[str, Any] = json.loads(data)
            yield answer

    def close(self) -> None:
        """End it; one that hangs in the kernel is left to it."""
        self._socket.close()
        self._child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_PATIENCE_SECONDS)
