"""The process that reads debug files, which may be hostile, within bounds of time and memory.

Started by `client` with one JSON object of settings. Each message ``{"address": [...]}`` is
answered: ``{"place": [function, offset, [[function, file, line], ...], note]}`` or
``{"why": text}``. What exceeds the bounds kills it, which its client takes as an answer.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fserr_bpf.children.channel import channel_to_parent
from fserr_bpf.model.event import Address
from fserr_bpf.symbolize.place import NoSymbol
from fserr_bpf.symbolize.store import Store

if TYPE_CHECKING:
    from fserr_bpf.symbolize.resolver import Resolver

CPU_SECONDS = 30
"""For one address; the first one of a ``vmlinux`` takes one second on a slow machine."""

MEMORY = 300 << 20
"""Bytes of its own; mapped files are not counted."""

_ADDRESS_SPACE = 8 << 30  # with the files, some of which are decompressed ones
_FILE_SIZE = 2 << 30


def main(arguments: Sequence[str]) -> int:
    """Answer until the client closes its end."""
    channel, settings = channel_to_parent(arguments[0]), json.loads(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    os.nice(19)  # whoever waits for events comes first
    for limit, value in (
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_AS, _ADDRESS_SPACE),
        (resource.RLIMIT_FSIZE, _FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    resolver: Resolver | None = None
    if find_spec("elftools") is not None:
        from fserr_bpf.symbolize.resolver import Resolver  # noqa: PLC0415 - needs it

        roots = [Path(folder) for folder in settings["debug_dirs"]]
        resolver = Resolver(roots, settings["urls"], Store(Path(settings["cache"])))
    while True:
        try:
            question = channel.receive()
        except EOFError:
            return 0
        _allow_cpu()
        answer = _answer(resolver, Address(*question["address"]))
        try:
            channel.send(answer)
        except ValueError as error:  # names without end
            channel.send({"why": f"damaged debug file: {error}"})


def _allow_cpu() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _answer(resolver: Resolver | None, address: Address) -> dict[str, object]:
    if resolver is None:
        return {"why": "pyelftools is missing; pip install 'fserr-bpf[symbols]'"}
    try:
        return {"place": resolver.place(address)}
    except NoSymbol as error:
        return {"why": str(error)}
    except Exception as error:
        # pyelftools and the readers here fail in many ways on a damaged file: all mean this
        resolver.forget()
        return {"why": f"damaged debug file: {str(error) or type(error).__name__}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
