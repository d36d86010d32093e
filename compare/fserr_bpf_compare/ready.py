"""The other end of ``--ready-fd``, for what starts ``fserr-bpf`` and waits until it is attached."""

from __future__ import annotations

import os
import select

from fserr_bpf.closing import Closing


class Ready(Closing):
    """A pipe for one command: ``options`` are for its command line, ``pass_fds`` for Popen."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self.options = ("--ready-fd", str(self._writer))
        self.pass_fds = (self._writer,)

    def wait(self, seconds: float) -> bool:
        """Whether the command, which has been started, is attached: False if it ended before.

        Raises TimeoutError.
        """
        if self._writer >= 0:  # the command's copy has to be the last one
            os.close(self._writer)
            self._writer = -1
        if not select.select([self._reader], [], [], max(0.0, seconds))[0]:
            raise TimeoutError("not ready in time")
        return os.read(self._reader, 64) == b"READY=1\n"

    def close(self) -> None:
        """Close what is open of the pipe."""
        for descriptor in (self._reader, self._writer):
            if descriptor >= 0:
                os.close(descriptor)
        self._reader = self._writer = -1
