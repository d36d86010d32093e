"""Options that several commands share."""

from __future__ import annotations

import argparse

from fserr_bpf.model.stream import Stream

_LONGEST = 86400


def add_paths(parser: argparse.ArgumentParser) -> None:
    """PATH ...: the file systems to watch."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="any path on the file system to watch; default: every file system on a disk that "
        "something can be seen of, also those mounted later",
    )


def add_stream(parser: argparse.ArgumentParser) -> None:
    """--stream: what is an event."""
    parser.add_argument(
        "--stream",
        type=_stream,
        choices=list(Stream),
        default=Stream.PROPOSED,
        help="native: what this kernel emits itself; fserror: what Linux 7.x emits; "
        "proposed (default): ext4, XFS and fatal btrfs errors, and failed writeback of every "
        "file system",
    )


def _stream(text: str) -> Stream:
    try:
        return Stream(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"there is no stream {text!r}; choose from {', '.join(Stream)}"
        ) from None


def seconds(text: str) -> float:
    """A time of up to a day; raises argparse.ArgumentTypeError."""
    number = float(text)
    if not 0 < number <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {_LONGEST}")
    return number
