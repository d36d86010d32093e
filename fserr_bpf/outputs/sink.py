"""Where encoded events go: a pipe or terminal that may be slow, or a file that may fill up.

A byte stream has no borders, so ``read(2)`` on a pipe cuts events where its buffer ends, which a
fanotify group never does. A pipe in packet mode (O_DIRECT, see pipe(2)) keeps each write apart.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import threading
from collections.abc import Sequence

from fserr_bpf.closing import Closing
from fserr_bpf.errors import OutputError

PIPE_BUF = select.PIPE_BUF  # as much as a writable pipe takes without blocking
_STDOUT = 1


class Sink(Closing):
    """An output descriptor. Whole records only: nothing is ever left half written.

    ``path`` None is standard output. A file is opened for appending, created with
    mode 0640 less the umask; for a FIFO see ``has_reader``. ``packets``: each record that is
    written to a pipe is what one read(2) returns. ``batch`` is how many bytes of records one
    write should collect. Raises OutputError when it cannot be opened.
    """

    def __init__(self, path: str | None, *, packets: bool = False) -> None:
        self.path = path
        self._packets = packets
        self.name = path or "standard output"
        self._fd = -1
        self._flags: int | None = None  # those of standard output, to be restored
        self._regular = False
        self.batch = 0
        self.has_reader = True
        """False for a FIFO that nobody has opened; then nothing but ``wait_for_reader`` works."""
        if path is None:
            self._use(_STDOUT)
            return
        try:
            self._use(_open(path, os.O_NONBLOCK))
        except OSError as error:
            self.has_reader = error.errno != errno.ENXIO or not _is_fifo(path)
            if self.has_reader:
                raise self._not_opened(error) from error

    def _use(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        self._fd = fd
        self._regular = stat.S_ISREG(mode)
        packets = self._packets and stat.S_ISFIFO(mode)
        self.batch = 0 if packets else PIPE_BUF // 2
        if packets:
            self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            fcntl.fcntl(fd, fcntl.F_SETFL, self._flags | os.O_DIRECT)

    def wait_for_reader(self, stop: int) -> bool:
        """Open a FIFO once it has a reader; False if ``stop`` was readable before.

        Raises OutputError.
        """
        path = self.path or ""
        opened: list[int | OSError] = []
        done, end = os.pipe2(os.O_CLOEXEC)

        def wait() -> None:
            try:
                opened.append(_open(path, 0))
            except OSError as error:
                opened.append(error)
            os.close(end)

        # open(2) cannot be polled for, and a signal that comes just before does not end it
        threading.Thread(target=wait, daemon=True).start()
        poll = select.poll()
        poll.register(done, select.POLLIN)
        poll.register(stop, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if done not in ready:
            return False
        os.close(done)
        (found,) = opened
        if isinstance(found, OSError):
            raise self._not_opened(found) from found
        self._use(found)
        self.has_reader = True
        return True

    def reopen(self) -> None:
        """Open the path again, which may be another file by now (log rotation).

        Raises OutputError, with the file that was open before still in use.
        """
        if self.path is None:
            return
        try:
            fd = _open(self.path, os.O_NONBLOCK)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be opened again ({error.strerror}), so events go on into "
                "the file that was open",
                "give the user of fserr-bpf the right to write there",
            ) from error
        os.close(self._fd)
        self._use(fd)

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
        """Cut a torn record off a full file, unless another process has appended since."""
        end = os.lseek(self._fd, 0, os.SEEK_CUR) if self._regular else 0
        if done and self._regular and os.fstat(self._fd).st_size == end:
            os.ftruncate(self._fd, end - done)

    def reader_gone(self) -> OutputError:
        """What to raise when the pipe has no reader any more."""
        return OutputError(
            f"the reader of {self.name} has gone", "start the reader again, then fserr-bpf"
        )

    def _not_opened(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {error.strerror}", "name another --output")

    def _failure(self, error: OSError) -> OutputError:
        if error.errno == errno.EPIPE:
            return self.reader_gone()
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return OutputError(
                f"{self.name}: {error.strerror}",
                "free space there; events that could not be written are on standard error",
            )
        elsewhere = "name another --output" if self.path else "redirect standard output elsewhere"
        return OutputError(f"{self.name}: {error.strerror}", elsewhere)

    def close(self) -> None:
        """Close a file; standard output is not ours to close, and others may write to it."""
        if self.path is None:
            if self._flags is not None:
                fcntl.fcntl(self._fd, fcntl.F_SETFL, self._flags)
        elif self._fd >= 0:
            os.close(self._fd)


def _open(path: str, flags: int) -> int:
    """For appending; a later write blocks in any case."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o640)
    os.set_blocking(fd, True)
    return fd


def _is_fifo(path: str) -> bool:
    return stat.S_ISFIFO(os.stat(path).st_mode)
