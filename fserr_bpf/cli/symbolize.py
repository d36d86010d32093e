"""``fserr-bpf symbolize``: a recorded stream with function, file and line of its errors."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

from fserr_bpf.cli.watching import say
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.codec.proposed import read_detailed_error, read_error_location
from fserr_bpf.errors import DecodeError, UsageError
from fserr_bpf.model.event import Event, FsErrorEvent, Lost
from fserr_bpf.model.state import StateChange
from fserr_bpf.outputs import text
from fserr_bpf.outputs.schema import from_dict
from fserr_bpf.symbolize import Frame, Place, PortableAddress, RunningKernel, Symbolizer
from fserr_bpf.symbolize.calls import asked_of, call_before
from fserr_bpf.uapi.proposed import ErrorKind

_READ_SIZE = 65536
_MAX_LINE = 1 << 20
_BARE = (
    "a raw stream holds bare addresses, which are valid until the next boot of this kernel; "
    "record JSON lines to resolve them anywhere"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the grammar of this command; ``function`` runs it."""
    parser = subparsers.add_parser(
        "symbolize",
        help="show a recorded stream with function, file and line of its errors",
        description="Show the events of a recorded stream, JSON lines or raw bytes with "
        "details, each with function, file and line of the check that failed.",
    )
    parser.add_argument("file", metavar="FILE", help="recorded by fserr-bpf run --detail")
    parser.add_argument(
        "--debug-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="look for debug files here first: a tree as /usr/lib/debug, or of a build; "
        "may be given several times",
    )
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Print every good event, then raise DecodeError if one was not; returns 0 else.

    Raises UsageError for a file or folder that cannot be read.
    """
    for folder in arguments.debug_dir:
        if not Path(folder).is_dir():
            raise UsageError(f"{folder!r} is not a folder", "give a folder with debug files")
    with _open(arguments.file) as file, Symbolizer(arguments.debug_dir) as symbolizer:
        # a raw stream begins with a length that is a multiple of 4, which "{" is not
        recorded = _json_lines(file) if file.peek(1)[:1] == b"{" else _raw(file)
        for event, address in recorded:
            print(text.line(event))
            if address is not None:
                place = symbolizer.place(address)
                for line in _lines(address, place, symbolizer.reason(address)):
                    print(f"    {line}")
    return 0


def _open(path: str) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(
            f"cannot read {path!r}: {error.strerror}", "give a recorded stream"
        ) from error


def _json_lines(file: io.BufferedReader) -> Iterator[tuple[Event, PortableAddress | None]]:
    offset = 0
    while line := file.readline(_MAX_LINE):
        try:
            event = from_dict(json.loads(line), offset)
        except (ValueError, RecursionError) as error:
            raise DecodeError(offset, f"not a line of JSON: {error}") from error
        offset += len(line)
        if isinstance(event, StateChange | Lost):  # they have no place in the kernel
            continue
        origin = event.origin if isinstance(event, FsErrorEvent) else None
        yield event, asked_of(origin) if origin else None


def _raw(file: io.BufferedReader) -> Iterator[tuple[Event, PortableAddress | None]]:
    """Raw bytes hold bare addresses: they mean something on the boot that they are from."""
    kernel: RunningKernel | None = None
    decoder = Decoder()
    while data := file.read1(_READ_SIZE):
        for event in decoder.feed(data):
            detail = next(filter(None, map(read_detailed_error, event.extra)), None)
            if detail is None or not detail.failaddr:
                yield event, None
                continue
            if kernel is None:
                kernel = RunningKernel()
                say(kernel.hidden or _BARE)
            address = kernel.portable(detail.failaddr)
            # XFS's own checks have no line
            location = next(filter(None, map(read_error_location, event.extra)), None)
            if address and (detail.kind != ErrorKind.METADATA or (location and location.line)):
                address = call_before(address)
            yield event, address
    decoder.close()


def _lines(address: PortableAddress, place: Place | None, reason: str) -> Iterator[str]:
    """The chain of functions, innermost first, or where the address is and why there is none."""
    where = f"[{text.printable(address.module or 'vmlinux')}]"
    if place is None:
        section = text.printable(address.section)
        yield f"{section}+{address.offset:#x} {where}: {text.printable(reason)}"
        return
    *inlined, outermost = place.frames
    for frame in inlined:
        yield f"{_site(frame)}, inlined into"
    symbol = f"{text.printable(place.function)}+{place.offset:#x} {where}"
    yield f"{_site(outermost)}, {symbol}"
    if place.note:
        yield text.printable(place.note)


def _site(frame: Frame) -> str:
    name = text.printable(frame.function)
    return f"{name} at {text.printable(frame.file)}:{frame.line}" if frame.file else name
