"""Where encoded events go: a pipe or terminal that may be slow, or a file that may fill up."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Sequence

from fserr_bpf.closing import Closing
from fserr_bpf.errors import OutputError

PIPE_BUF = select.PIPE_BUF  # as much as a writable pipe takes without blocking


class Sink(Closing):
    """An output descriptor. Whole records only: nothing is ever left half written.

    ``path`` None is standard output. A file is opened for appending, created with
    mode 0640 less the umask. Raises OutputError when it cannot be opened.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self.name = path or "standard output"
        if path is None:
            self._fd = 1
        else:
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._fd = os.open(path, flags, 0o640)
            except OSError as error:
                raise OutputError(f"{path}: {error.strerror}", "name another --output") from error
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)

    def masks(self, *, waiting: bool) -> dict[int, int]:
        """What to poll for: room while events wait, else only that the reader leaves."""
        if self._regular:
            return {}
        return {self._fd: select.POLLOUT if waiting else 0}

    def ready(self) -> bool:
        """Whether a write of up to PIPE_BUF bytes will not block, or will fail at once."""
        if self._regular:
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def write(self, records: Sequence[bytes]) -> None:
        """Write records, all or none of them.

        Raises OutputError when the reader has gone or the disk is full.
        """
        data = b"".join(records)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            self._take_back(done)
            raise self._failure(error) from error

    def _take_back(self, done: int) -> None:
        """Cut a torn record off a full file, unless somebody has appended since."""
        end = os.lseek(self._fd, 0, os.SEEK_CUR) if self._regular else 0
        if done and self._regular and os.fstat(self._fd).st_size == end:
            os.ftruncate(self._fd, end - done)

    def _failure(self, error: OSError) -> OutputError:
        if error.errno == errno.EPIPE:
            return OutputError("the reader of standard output has gone", "start it again first")
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return OutputError(
                f"{self.name}: {error.strerror}",
                "free space; what could not be written is on standard error",
            )
        return OutputError(f"{self.name}: {error.strerror}")

    def close(self) -> None:
        """Close a file; standard output is not ours to close."""
        if self._path is not None:
            os.close(self._fd)
