"""Compiled programs that are kept from one start to the next.

What is in the folder runs in the kernel, so a file is taken only if folder and file are
root's alone, and every byte of it is as it was written, for this very target.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fserr_bpf.probes.programs import BadFile, Programs
from fserr_bpf.probes.target import Key, digest

FOLDER = Path("/var/cache/fserr-bpf")
FILES_KEPT = 256
_SIZE_LIMIT = 1 << 24
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def cache_folder() -> Path:
    """Where they are kept; systemd's CacheDirectory= says so by CACHE_DIRECTORY."""
    return Path(os.environ.get("CACHE_DIRECTORY", "").partition(":")[0] or FOLDER)


def file_name(key: Key) -> str:
    """Of the programs with this key."""
    return f"{key['release']}-{digest(repr(sorted(key.items())).encode())[:16]}.programs"


def load(folder: Path, key: Key, compiler: str | None) -> Programs | None:
    """The programs of this key, None where there are none that one may read.

    ``compiler``: only what that one has made, None for any. Raises `BadFile` for programs that
    are not to be used, OSError.
    """
    try:
        with _opened(folder) as directory:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(file_name(key), flags, dir_fd=directory), "rb") as file:
                _check(os.fstat(file.fileno()), stat.S_IFREG)
                programs = Programs.decode(file.read(_SIZE_LIMIT))
    except (FileNotFoundError, PermissionError):
        return None
    if programs.key != key:
        raise BadFile("made for another kernel or by another version")
    if compiler not in (None, programs.compiler):
        raise BadFile(f"made by {programs.compiler}, not by {compiler}")
    return programs


def store(folder: Path, programs: Programs) -> None:
    """Keep ``programs``, whole or not at all. Raises `BadFile` for the folder, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(folder) as directory:
        name = f".{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(programs.encode())
            # no fsync(2): what a crash leaves half written is not loaded
            final = file_name(programs.key)
            os.rename(name, final, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
            raise
        _prune(directory)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(os.fstat(directory), stat.S_IFDIR)
        yield directory
    finally:
        os.close(directory)


def _check(status: os.stat_result, kind: int) -> None:
    what = "the folder" if kind == stat.S_IFDIR else "the file"
    if stat.S_IFMT(status.st_mode) != kind:
        raise BadFile("not a regular file")
    if status.st_uid != 0:
        raise BadFile(f"{what} belongs to user {status.st_uid}, not to root")
    if status.st_mode & _OTHERS:
        raise BadFile(f"{what} has mode {stat.S_IMODE(status.st_mode):04o}: others have rights")


def _prune(directory: int) -> None:
    """Remove the oldest files: of kernels and versions that are gone, mostly."""
    times = {}
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # another process may be pruning too
            times[name] = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns
    for name in sorted(times, key=times.__getitem__)[:-FILES_KEPT]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
