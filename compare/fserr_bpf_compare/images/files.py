"""Files that hold an image: found in folders, recognised by what is in them, unpacked.

Compression and file system are taken from the content; the file's name says nothing.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO, NamedTuple, cast

from fserr_bpf.errors import LabError, UsageError
from fserr_bpf.outputs.text import printable
from fserr_bpf_compare.machines.tools import tool

# blkid's name -> the driver that mounts it: that of ext4 has ext2 and ext3 too.
DRIVERS = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), "ext4"),
    **{name: name for name in ("xfs", "btrfs", "f2fs", "vfat")},
}
_UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError, LabError)
_HEAD = 1 << 20  # bytes that hold every superblock which blkid looks for
_CHUNK = 1 << 16
_NOTHING_FOUND = (2, 8)  # exit codes of blkid: none, or several that exclude each other


_Opener = Callable[[Path], AbstractContextManager[IO[bytes]]]


class ImageFile(NamedTuple):
    """An image: the name of its cell, the driver that mounts it, the file."""

    name: str
    fstype: str
    path: Path


class Found(NamedTuple):
    """What ``find`` has found; ``others`` are files without a file system of `DRIVERS`."""

    images: tuple[ImageFile, ...]
    others: tuple[Path, ...]


def find(paths: Iterable[Path]) -> Found:
    """The images among ``paths`` and in the folders among them, by name.

    An image is called as its file, in a folder as its path from there; two of one name have
    their whole paths. Raises UsageError for a path that cannot be read, LabError without blkid.
    """
    files: dict[Path, str] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} is not there", "give images, or folders with images")
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.is_file())
            files |= {file.absolute(): str(file.relative_to(path)) for file in sorted(inside)}
        else:
            files[path.absolute()] = path.name
    names = list(files.values())
    images, others = [], []
    for file, name in files.items():
        if fstype := recognise(file):
            word = printable(name if names.count(name) == 1 else str(file))
            images.append(ImageFile(word, fstype, file))
        else:
            others.append(file)
    return Found(tuple(images), tuple(others))


def recognise(path: Path) -> str:
    """The driver for the file system in ``path``; "" if blkid finds none of them."""
    try:
        if _opener(path) is None:
            return _probe(path)
        with opened(path) as stream:
            head = stream.read(_HEAD)
    except _UNPACKING:
        return ""
    with tempfile.NamedTemporaryFile(prefix="fserr-head-") as file:
        file.write(head)
        file.flush()
        return _probe(Path(file.name))


def _probe(path: Path) -> str:
    names = ",".join(DRIVERS)
    command = (tool("blkid"), "-p", "-n", names, "-s", "TYPE", "-o", "value", str(path))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and done.returncode not in _NOTHING_FOUND:
        raise LabError(f"blkid {path}: {' '.join(done.stderr.split())}")
    return DRIVERS.get(done.stdout.strip(), "")


def unpack(path: Path, target: Path) -> None:
    """Write the image in ``path`` to the new file ``target``, with holes for its zeros.

    Raises LabError if that is not possible to its end.
    """
    zeros = bytes(_CHUNK)
    try:
        with target.open("xb") as output, opened(path) as source:
            # a pipe may give less than it was asked for, which costs holes only
            while chunk := source.read(_CHUNK):
                if chunk == zeros:
                    output.seek(_CHUNK, os.SEEK_CUR)
                else:
                    output.write(chunk)
            output.truncate(output.tell())
    except _UNPACKING as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise LabError(f"{path.name} cannot be unpacked: {words}") from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """What is in ``path``, uncompressed. Raises OSError, or LabError for what zstd refuses."""
    opener = _opener(path)
    with path.open("rb") if opener is None else opener(path) as stream:
        yield stream


def _opener(path: Path) -> _Opener | None:
    """Who uncompresses ``path``, by its first bytes; None if it is not compressed."""
    with path.open("rb") as file:
        head = file.read(8)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if head.startswith(magic):
            return cast("_Opener", opener)
    return _zstd if head.startswith(b"\x28\xb5\x2f\xfd") else None


@contextmanager
def _zstd(path: Path) -> Iterator[IO[bytes]]:
    # Python has no decoder for it before 3.14
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        command = [tool("zstd"), "-dqc"]
        child = subprocess.Popen(command, stdin=file, stdout=PIPE, stderr=PIPE)
        stack.enter_context(child)
        assert child.stdout is not None
        assert child.stderr is not None
        stack.callback(child.kill)  # when only the head was wanted
        yield child.stdout
        if not child.stdout.read(1) and child.wait():
            raise LabError(child.stderr.read().decode(errors="replace").strip())
