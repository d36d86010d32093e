"""A file that always shows the newest of something, whole: written beside it and renamed.

A thread writes, for the folder may be on a disk that hangs. It sleeps while nothing is new.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from fserr_bpf.closing import Closing

GAP_SECONDS = 1.0
"""Between two writes at least, however often there is news."""


class Published(Closing):
    """The file at ``path``, which is removed at the end. Nothing raises but ``start()``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._changed = threading.Condition()
        self._next: Callable[[], bytes] | None = None
        self._ending = False
        self._trouble = ""
        self._news: list[str] = []
        self._thread = threading.Thread(target=self._run, name=path, daemon=True)

    def start(self) -> None:
        """Begin to write; after rights were given up, as a thread keeps them."""
        self._thread.start()

    def show(self, content: Callable[[], bytes]) -> None:
        """``content()`` is what it should hold from now on; called by the thread."""
        with self._changed:
            self._next = content
            self._changed.notify()

    def news(self) -> list[str]:
        """Messages since the last call."""
        with self._changed:
            news, self._news = self._news, []
            return news

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._ending:
                    self._changed.wait()
                content, self._next = self._next, None
                if self._ending:
                    return
            assert content is not None
            self._write(content())
            with self._changed:
                self._changed.wait_for(lambda: self._ending, GAP_SECONDS)

    def _write(self, data: bytes) -> None:
        trouble = ""
        try:
            write_whole(self.path, data)
        except OSError as error:
            trouble = error.strerror or str(error)
        with self._changed:
            if bool(trouble) != bool(self._trouble):
                said = f"cannot be written: {trouble}" if trouble else "is written again"
                self._news.append(f"{self.path} {said}")
            self._trouble = trouble

    def close(self) -> None:
        """Remove the file: what it shows is not true any more. One that hangs is left."""
        if self._thread.ident is None:
            return
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(GAP_SECONDS)
        if not self._thread.is_alive():
            try:
                os.unlink(self.path)
            except OSError:
                return


def write_whole(path: str, data: bytes) -> None:
    """The file, readable for all, has all of ``data`` or is as it was. Raises OSError."""
    beside = f"{path}.new"
    fd = os.open(
        beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
    )
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o644)  # it is for everybody, whatever the umask
        file.write(data)
    os.rename(beside, path)
