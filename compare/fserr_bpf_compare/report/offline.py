"""Two captured raw streams against each other, without root and without a kernel.

Both are read a piece at a time and event by event, twice: the level comes before what is shown.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

from fserr_bpf.closing import Closing
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import DecodeError, FserrError
from fserr_bpf.model.event import Event
from fserr_bpf_compare.report import decoded
from fserr_bpf_compare.report.decoded import Decoded
from fserr_bpf_compare.report.sidebyside import side_by_side
from fserr_bpf_compare.verdict.cells import Level
from fserr_bpf_compare.verdict.judge import EXIT_BROKEN, EXIT_DIFFERENT, EXIT_SAME
from fserr_bpf_compare.verdict.levels import reached_one_by_one

LIMIT = 1 << 30
"""Bytes that are kept of an input that cannot be read twice."""
_READ_SIZE = 1 << 16
_WORDS = {
    Level.L0: "the bytes are equal",
    Level.L1: "equal but for order and unknown info records",
    Level.L2: "the same errors, merged differently",
    Level.L3: "the same kinds of errors, not as many",
    Level.DIFFERENT: "the errors differ",
}


def main(real: Path, emulated: Path, *, colour: bool, limit: int = LIMIT) -> int:
    """Print the level that both reach, then both beside each other.

    ``colour`` is for a terminal. Returns 0 for equal bytes and 1 otherwise; 2, with a line
    on standard error, for a file that cannot be read or is no raw stream to its end. Where
    a stream was cut into reads is not known here and not compared. ``limit`` is in bytes.
    """
    try:
        with ExitStack() as stack:
            left, right = (stack.enter_context(_Input(p, limit)) for p in (real, emulated))
            level = reached_one_by_one(zip_longest(left.events(), right.events()))
            print(f"{level.name}: {_WORDS[level]} ({left.size} and {right.size} bytes)")
            headings = (real.name, emulated.name)
            for line in side_by_side(left.again(), right.again(), headings, colour=colour):
                print(line)
    except FserrError as error:
        print(f"fserr-bpf: {error}", file=sys.stderr)
        return EXIT_BROKEN
    return EXIT_SAME if level is Level.L0 else EXIT_DIFFERENT


class _Input(Closing):
    """A stream that is read twice; of a pipe at most ``limit`` bytes are kept in a file.

    ``size`` is in bytes. Whatever is wrong with it is an FserrError that names ``path``.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.size = 0
        self._path = path
        self._limit = limit
        with ExitStack() as stack:
            try:
                self._input = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, self._input)
                self._file = self._input
                if not stat.S_ISREG(os.fstat(self._input).st_mode):
                    self._file = stack.enter_context(tempfile.TemporaryFile()).fileno()
            except OSError as error:
                raise self._failure(error) from error
            self._closing = stack.pop_all()

    def events(self) -> Iterator[tuple[Event, bytes]]:
        """Each event and its bytes, as they arrive."""
        yield from self._decoded(self._arriving())

    def again(self) -> Iterator[Decoded]:
        """The same for people, once all have arrived."""
        for _, data in self._decoded(self._kept(0)):
            yield from decoded.events(data)

    def _decoded(self, pieces: Iterator[bytes]) -> Iterator[tuple[Event, bytes]]:
        decoder = Decoder()
        begin = 0
        try:
            for piece in pieces:
                for event in decoder.feed(piece):
                    yield event, os.pread(self._file, decoder.offset - begin, begin)
                    begin = decoder.offset
            decoder.close()
        except (OSError, DecodeError) as error:
            raise self._failure(error) from error

    def _arriving(self) -> Iterator[bytes]:
        while piece := os.read(self._input, _READ_SIZE):
            self.size += len(piece)
            if self._file != self._input:
                if self.size > self._limit:
                    raise FserrError(
                        f"{self._path}: more than {self._limit} bytes through a pipe",
                        "give a file instead",
                    )
                os.write(self._file, piece)
            yield piece

    def _kept(self, at: int) -> Iterator[bytes]:
        while piece := os.pread(self._file, _READ_SIZE, at):
            at += len(piece)
            yield piece

    def _failure(self, error: OSError | DecodeError) -> FserrError:
        cause = error.strerror if isinstance(error, OSError) else error
        return FserrError(f"{self._path}: {cause}")

    def close(self) -> None:
        """Close it, and forget what was kept."""
        self._closing.close()
