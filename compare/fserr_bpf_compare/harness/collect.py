"""The cells of scenarios: one guest for each kernel runs all of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.harness import start
from fserr_bpf_compare.harness.start import Target
from fserr_bpf_compare.verdict.cells import Cell


class Order(NamedTuple):
    """What to run: names of scenarios, the stream or None for the kernel's own, seconds."""

    scenarios: tuple[str, ...]
    stream: Stream | None
    timeout: float


def cells(
    targets: Sequence[Target], order: Order, jobs: int, on_cell: Callable[[Cell], None]
) -> list[Cell]:
    """The cells of all targets, in order; ``jobs`` machines run at a time.

    ``on_cell`` is called for each cell as it comes, from several threads.
    """

    def one(kernel: Target, cancel: threading.Event) -> list[Cell]:
        return _cells_of(kernel, order, on_cell, cancel)

    return start.of_all(targets, jobs, one)


def _cells_of(
    kernel: Target, order: Order, on_cell: Callable[[Cell], None], cancel: threading.Event
) -> list[Cell]:
    found: dict[str, Cell] = {}

    def take(line: bytes) -> None:
        cell = Cell.from_json(json.loads(line))
        found[cell.scenario] = cell
        on_cell(cell)

    words = ["--kernel", kernel.name, *(["--stream", order.stream] if order.stream else [])]
    module = "fserr_bpf_compare.harness.guest"
    ending = start.run(kernel, [module, *words, *order.scenarios], order.timeout, take, cancel)
    blank = Cell(kernel.name, "", scenario="", stream=str(order.stream or ""))
    if ending.machine:
        blank = blank._replace(not_run=ending.trouble, machine=True)
    else:
        blank = blank._replace(trouble=ending.trouble or "the guest ended without this cell")
    if found:
        first = next(iter(found.values()))
        blank = blank._replace(release=first.release, stream=first.stream)
    for name in order.scenarios:
        if name not in found:
            found[name] = blank._replace(scenario=name)
            on_cell(found[name])
    return [found[name] for name in order.scenarios]
