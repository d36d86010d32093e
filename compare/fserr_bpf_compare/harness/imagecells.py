"""The cells of images: guests play one after the other, and another one goes on where one ends.

An image may panic the kernel that mounts it, or hang it. That is the image's cell; the rest is
played by a new guest.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.harness import start
from fserr_bpf_compare.harness.start import Target
from fserr_bpf_compare.images.files import ImageFile
from fserr_bpf_compare.verdict.cells import Cell

_MOST = 500  # images of one guest: their names are words of its command
SILENCE = 1200.0
"""Seconds that an image may take: more than all its steps may. The guest hangs as a whole then."""


class ImageOrder(NamedTuple):
    """What to play, the stream or None for the kernel's own, seconds for each kernel.

    ``silence`` is as `SILENCE`.
    """

    images: tuple[ImageFile, ...]
    stream: Stream | None
    timeout: float
    silence: float = SILENCE


def cells(
    targets: Sequence[Target], order: ImageOrder, jobs: int, on_cell: Callable[[Cell], None]
) -> list[Cell]:
    """The cells of all targets, in order; see `collect.cells`."""

    def one(kernel: Target, cancel: threading.Event) -> list[Cell]:
        return _Plays(kernel, order, on_cell, cancel).run()

    return start.of_all(targets, jobs, one)


class _Cancel(threading.Event):
    """Set by itself, or because everything is to end."""

    def __init__(self, everything: threading.Event) -> None:
        super().__init__()
        self._everything = everything

    def is_set(self) -> bool:
        return super().is_set() or self._everything.is_set()


class _Plays:
    """All images on one kernel."""

    def __init__(
        self,
        kernel: Target,
        order: ImageOrder,
        on_cell: Callable[[Cell], None],
        cancel: threading.Event,
    ) -> None:
        self._kernel, self._order, self._on_cell, self._cancel = kernel, order, on_cell, cancel
        self._found: dict[str, Cell] = {}
        self._blank = Cell(kernel.name, "", scenario="", stream=str(order.stream or ""))

    def run(self) -> list[Cell]:
        """One guest after the other, until each image has its cell."""
        deadline = time.monotonic() + self._order.timeout
        while left := [image for image in self._order.images if image.name not in self._found]:
            if (seconds := deadline - time.monotonic()) > 0:
                self._guest(left[:_MOST], seconds)
                continue
            for image in left:
                self._miss(image, trouble=f"not played within {self._order.timeout:g} s")
        return [self._found[image.name] for image in self._order.images]

    def _guest(self, images: Sequence[ImageFile], timeout: float) -> None:
        """Play ``images``, or some of them and what ended the guest."""
        guest = _Guest(self._order.silence, self._cancel, self._add)
        words = ["--kernel", self._kernel.name]
        words += ["--stream", self._order.stream] if self._order.stream else []
        for image in images:
            words += [image.name, image.fstype, str(image.path)]
        before = len(self._found)
        ending = guest.run(self._kernel, words, timeout)
        if ending.machine or self._cancel.is_set():
            for image in images:
                self._miss(image, not_run=ending.trouble or "the run was cancelled", machine=True)
        elif guest.playing:
            blamed = next(image for image in images if image.name == guest.playing)
            self._miss(blamed, trouble=ending.trouble or "the guest ended while it played this")
        elif len(self._found) == before:  # it has not come to the first one
            for image in images:
                self._miss(image, trouble=ending.trouble or "the guest ended without this cell")

    def _add(self, cell: Cell) -> None:
        self._blank = self._blank._replace(
            release=cell.release,
            stream=cell.stream,
            witness=cell.witness,
            basis=cell.basis,
            patched=cell.patched,
        )
        self._found[cell.scenario] = cell
        self._on_cell(cell)

    def _miss(
        self, image: ImageFile, *, trouble: str = "", not_run: str = "", machine: bool = False
    ) -> None:
        if image.name not in self._found:
            cell = self._blank._replace(
                scenario=image.name,
                image=str(image.path),
                fstype=image.fstype,
                trouble=trouble,
                not_run=not_run,
                machine=machine,
            )
            self._found[image.name] = cell
            self._on_cell(cell)


class _Guest:
    """One guest: ``playing`` is the image whose cell it has not given, or ""."""

    def __init__(
        self, silence: float, everything: threading.Event, on_cell: Callable[[Cell], None]
    ) -> None:
        self.playing = ""
        self._silence, self._on_cell = silence, on_cell
        self._cancel = _Cancel(everything)
        self._timer: threading.Timer | None = None

    def run(self, kernel: Target, words: Sequence[str], timeout: float) -> start.Ending:
        """Run it; it is ended when it prints nothing about an image for too long."""
        module = "fserr_bpf_compare.harness.imageguest"
        try:
            ending = start.run(kernel, [module, *words], timeout, self._take, self._cancel)
        finally:
            self._rest()
        if self._cancel.is_set() and self.playing:
            return ending._replace(trouble=f"the kernel hangs: no answer in {self._silence:g} s")
        return ending

    def _take(self, line: bytes) -> None:
        self._rest()
        value = json.loads(line)
        if isinstance(value, str):
            self.playing = value
            self._timer = threading.Timer(self._silence, self._cancel.set)
            self._timer.daemon = True
            self._timer.start()
            return
        cell = Cell.from_json(value)
        self.playing = ""
        self._on_cell(cell)
        if cell.lost:  # its machine may not even come to a halt
            self._cancel.set()

    def _rest(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
