"""What is done with a mounted image: everything in it is read, then much of it is changed.

The order is that of the names, so that a second play of an image does the same. What fails
is counted by its errno and does not stop the rest: that is what the image is there for.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf.kernel.libc import check, libc
from fserr_bpf.outputs.errno import errno_name

_MOST_ENTRIES = 300  # a damaged directory may have no end
_MOST_BYTES = 4 << 20  # of one file that are read
_CHUNK = 1 << 16
_FILES, _FOLDERS = 8, 4  # of the image that are written to


class Tally:
    """What was done how often, and what failed with which errno, in words."""

    def __init__(self) -> None:
        self._done = Counter[str]()
        self._failed = Counter[str]()

    @contextmanager
    def count(self, what: str) -> Iterator[None]:
        """Count the block as one ``what``, or its OSError instead."""
        try:
            yield
        except OSError as error:
            self._failed[errno_name(error.errno or 0)] += 1
        else:
            self._done[what] += 1

    def __str__(self) -> str:
        done = [f"{count} {what}" for what, count in self._done.items()]
        failed = [f"{name} x{count}" for name, count in sorted(self._failed.items())]
        words = ", ".join(done) or "nothing"
        return f"{words}; failed: {', '.join(failed)}" if failed else words


def read_all(root: Path) -> str:
    """Read directories, files, links and extended attributes below ``root``; in words what."""
    tally = Tally()
    for path, status in _walk(root, tally):
        with tally.count("attribute lists"):
            for name in os.listxattr(path, follow_symlinks=False):
                os.getxattr(path, name, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            with tally.count("links"):
                os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            with tally.count("files"):
                _read(path)
    return str(tally)


def write_all(root: Path) -> str:
    """Make, change, rename and remove files and directories below ``root``; in words what."""
    tally = Tally()
    files, folders = [], [root]
    for path, status in _walk(root, Tally()):
        if stat.S_ISREG(status.st_mode):
            files.append(path)
        elif stat.S_ISDIR(status.st_mode):
            folders.append(path)
    for folder in folders[:_FOLDERS]:
        _make(folder, tally)
    for number, path in enumerate(files[:_FILES]):
        _change(path, number, tally)
    with tally.count("syncs"):
        _sync(root)
    return str(tally)


def _walk(root: Path, tally: Tally) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below ``root`` but devices and the like; what cannot be looked at is counted."""
    waiting, seen = deque([root]), set[int]()
    entries = 0
    while waiting:
        folder = waiting.popleft()
        names: list[str] = []
        with tally.count("directories"):
            names = sorted(os.listdir(folder))
        for name in names:
            entries += 1
            if entries > _MOST_ENTRIES:
                return
            path = folder / name
            looked: list[os.stat_result] = []
            with tally.count("entries"):
                looked.append(os.lstat(path))
            if not looked:
                continue
            (status,) = looked
            if stat.S_ISDIR(status.st_mode) and status.st_ino not in seen:
                seen.add(status.st_ino)  # damage can make a directory its own parent
                waiting.append(path)
            yield path, status


def _read(path: Path) -> None:
    with _opened(path, os.O_RDONLY) as descriptor:
        left = _MOST_BYTES
        while left > 0 and (data := os.read(descriptor, _CHUNK)):
            left -= len(data)


def _make(folder: Path, tally: Tally) -> None:
    """New entries of every kind in ``folder``, some of which go again."""
    mine = folder / "fserr-bpf"
    with tally.count("directories made"):
        mine.mkdir()
    if not os.path.isdir(mine):  # which is no directory either where it cannot be looked at
        mine = folder  # there the rest may find more to fail
    new = [mine / f"file {number}" for number in range(12)]
    steps: list[tuple[str, Callable[[], object]]] = [
        *(("files made", path.touch) for path in new),
        ("files written", lambda: new[0].write_bytes(b"fserr-bpf\n" * 20000)),
        ("attributes set", lambda: os.setxattr(new[1], "user.fserr", b"x" * 300)),
        ("links made", lambda: (mine / "link").symlink_to("file 0")),
        ("links made", lambda: (mine / "hard link").hardlink_to(new[0])),
        ("renamed", lambda: new[2].rename(folder / "fserr-bpf file")),
        ("files removed", new[3].unlink),
        ("modes changed", lambda: new[4].chmod(0o600)),
    ]
    for what, step in steps:
        with tally.count(what):
            step()


def _change(path: Path, number: int, tally: Tally) -> None:
    """A few changes of a file of the image; every fourth one is removed."""
    with tally.count("files written"), _opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
        os.write(descriptor, b"fserr-bpf\n" * 500)
        if number == 0:  # each is a commit of the journal: the rest is synced at the end
            os.fsync(descriptor)
    with tally.count("files cut"):
        os.truncate(path, path.lstat().st_size // 2)
    if number % 4 == 3:
        with tally.count("files removed"):
            path.unlink()


def _sync(root: Path) -> None:
    with _opened(root, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        check(libc.syncfs(descriptor))


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
