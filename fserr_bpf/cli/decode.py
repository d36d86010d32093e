"""``fserr-bpf decode``: a raw or msgpack stream, live or from a file, for people or jq."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import OutputError, UsageError
from fserr_bpf.outputs.formats import FORMATS, Format, encoded
from fserr_bpf.outputs.unpack import MsgpackDecoder

_STDIN, _STDOUT = 0, 1
_READ_SIZE = 65536
_SNIFF_SIZE = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the grammar of this command; ``function`` runs it."""
    parser = subparsers.add_parser(
        "decode",
        help="show a recorded or live stream of events",
        description="Show the events of a raw fanotify or msgpack stream. "
        "Reads pipes live; stops at the first byte that is neither.",
    )
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="- is standard input")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("auto", "raw", "msgpack"),
        default="auto",
        help="what FILE holds (default: %(default)s, decided by its first bytes)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="what to print (default: %(default)s)",
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Print every good event, then raise DecodeError if one was not.

    Returns 0, or OutputError's exit code without a message when the reader of standard
    output has gone, as ``| head`` does. Raises UsageError for a file that cannot be
    read and OutputError when writing fails otherwise.
    """
    try:
        with _open(arguments.file) as descriptor:
            _copy(descriptor, arguments.file, arguments.source, FORMATS[arguments.format])
    except BrokenPipeError:
        return OutputError.exit_code
    return 0


@contextmanager
def _open(path: str) -> Iterator[int]:
    if path == "-":
        yield _STDIN
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(descriptor: int, path: str, source: str, output: Format) -> None:
    """From ``descriptor`` to standard output, one write per read."""
    decoder: Decoder | MsgpackDecoder | None = None
    data = b""
    while piece := _read(descriptor, path):
        data += piece
        if decoder is None:
            if len(data) < _SNIFF_SIZE:
                continue
            decoder = _decoder(source, data)
        _print(decoder, data, output)
        data = b""
    if decoder is None:
        decoder = _decoder(source, data)
        _print(decoder, data, output)
    decoder.close()


def _print(decoder: Decoder | MsgpackDecoder, data: bytes, output: Format) -> None:
    lines: list[bytes] = []
    try:
        for event in decoder.feed(data):
            lines.append(encoded(event, output))
    finally:
        _write(b"".join(lines))


def _decoder(source: str, first: bytes) -> Decoder | MsgpackDecoder:
    """The decoder for ``source``; "auto" decides by the first three bytes.

    They cannot be both. A raw stream begins with event_len, little endian and at most
    65536, so its third byte is 0 or 1. A msgpack stream begins with a map (80 to 8f, de,
    df) of at least two keys: after 80 to 8f comes the marker of the first key and then its
    first letter, after de the low byte of the number of keys; df, for more than 65535
    keys, is never an event. What is neither goes to the raw decoder, which refuses it.
    """
    is_map = b"\x80" <= first[:1] <= b"\x8f" or first[:1] == b"\xde"
    if source == "msgpack" or (source == "auto" and is_map and first[2:3] > b"\x01"):
        return MsgpackDecoder()
    return Decoder()


def _read(descriptor: int, path: str) -> bytes:
    try:
        return os.read(descriptor, _READ_SIZE)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> UsageError:
    name = "standard input" if path == "-" else repr(path)
    return UsageError(f"cannot read {name}: {error.strerror}", "give a file or pipe to read")


def _write(data: bytes) -> None:
    """Write all of ``data`` to the descriptor: no buffer is left to fail at exit."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(_STDOUT, view) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write to standard output: {error.strerror}", "redirect it elsewhere"
        ) from error
