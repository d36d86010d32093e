"""Two captured raw streams against each other, without root and without a kernel."""

from __future__ import annotations

import sys
from pathlib import Path

from compare.cells import Level, Read
from compare.judge import EXIT_BROKEN, EXIT_DIFFERENT, EXIT_SAME
from compare.levels import reached
from compare.sidebyside import side_by_side
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import DecodeError

_WORDS = {
    Level.L0: "the bytes are equal",
    Level.L1: "equal but for order and unknown info records",
    Level.L2: "the same errors, merged differently",
    Level.L3: "the same kinds of errors, not as many",
    Level.DIFFERENT: "the errors differ",
}


def main(real: Path, emulated: Path, *, colour: bool) -> int:
    """Print the level that both reach, then both beside each other.

    ``colour`` is for a terminal. Returns 0 for equal bytes and 1 otherwise; 2, with a line
    on standard error, for a file that cannot be read or is no raw stream to its end. Where
    a stream was cut into reads is not known here and not compared.
    """
    streams = []
    for path in (real, emulated):
        try:
            streams.append(path.read_bytes())
            _check(streams[-1])
        except (OSError, DecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            print(f"fserr-bpf: {path}: {cause}", file=sys.stderr)
            return EXIT_BROKEN
    left, right = streams
    level = reached([Read(0, left)], [Read(0, right)])
    print(f"{level.name}: {_WORDS[level]} ({len(left)} and {len(right)} bytes)")
    headings = (real.name, emulated.name)
    for line in side_by_side(left, right, headings, colour=colour):
        print(line)
    return EXIT_SAME if level is Level.L0 else EXIT_DIFFERENT


def _check(stream: bytes) -> None:
    decoder = Decoder()
    for _ in decoder.feed(stream):
        pass
    decoder.close()
