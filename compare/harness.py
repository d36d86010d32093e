"""Kernels by scenarios: starts the guest program for each kernel and collects its cells.

The guest is the same program everywhere: a child process for the running kernel, a
command in a QEMU machine for all others.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from compare import packages, vm
from compare.bootable import bootable
from compare.cells import Cell
from compare.kernels import Kernel
from compare.packages import Image
from fserr_bpf.errors import LabError
from fserr_bpf.model.stream import Stream

HERE = "here"
_ROOT = Path(__file__).parents[1]
_LAST_WORDS = 3  # lines of standard error that explain a death


class Target(NamedTuple):
    """A kernel to compare on: its name in the cells, and None or what vm.run() boots."""

    name: str
    boots: Kernel | Image | None


class Order(NamedTuple):
    """What to play: names of scenarios, the stream or None for the kernel's own, seconds."""

    scenarios: tuple[str, ...]
    stream: Stream | None
    timeout: float


def target(name: str, modules: Path | None = None) -> Target:
    """The running kernel ("here"), or what `compare.bootable` says; raises what that does."""
    return Target(name, None if name == HERE else bootable(name, modules))


def run(
    targets: Sequence[Target], order: Order, jobs: int, heard: Callable[[Cell], None]
) -> list[Cell]:
    """The cells of all targets, in order; ``jobs`` machines run at a time.

    ``heard`` is called for each cell as it comes, from several threads.
    """
    cancel = threading.Event()

    def one(kernel: Target) -> list[Cell]:
        return _run_one(kernel, order, heard, cancel)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return [cell for cells in pool.map(one, targets) for cell in cells]
        except BaseException:  # Ctrl-C too: the machines must not run on
            cancel.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Lines(io.BytesIO):
    """A stream that hands on each line as it is complete."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        super().__init__()
        self._take = take
        self._rest = b""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        return len(data)


def _run_one(
    kernel: Target, order: Order, heard: Callable[[Cell], None], cancel: threading.Event
) -> list[Cell]:
    cells: dict[str, Cell] = {}
    said: list[bytes] = []

    def take(line: bytes) -> None:
        cell = Cell.from_json(json.loads(line))
        cells[cell.scenario] = cell
        heard(cell)

    words = ["--kernel", kernel.name, *(["--stream", order.stream] if order.stream else [])]
    command = [sys.executable, "-m", "compare.guest", *words, *order.scenarios]
    blank = Cell(kernel.name, "", scenario="", stream=str(order.stream or ""))
    try:
        death = _status(kernel, command, order.timeout, (_Lines(take), _Lines(said.append)), cancel)
        blank = blank._replace(trouble=death)
    except LabError as error:
        fetched = kernel.boots is None or isinstance(kernel.boots, Image) or _is_fetched(kernel)
        words_of_error = str(error)
        if fetched:
            blank = blank._replace(trouble=words_of_error)
        else:
            blank = blank._replace(not_run=words_of_error, machine=True)
    if cells:
        first = next(iter(cells.values()))
        blank = blank._replace(release=first.release, stream=first.stream)
    if blank.trouble and said:
        last = b" | ".join(said[-_LAST_WORDS:]).decode(errors="backslashreplace")
        blank = blank._replace(trouble=f"{blank.trouble}: {last}")
    for name in order.scenarios:
        if name not in cells:
            missing = blank._replace(scenario=name)
            if not missing.trouble and not missing.not_run:
                missing = missing._replace(trouble="the guest ended without this cell")
            cells[name] = missing
            heard(missing)
    return [cells[name] for name in order.scenarios]


def _is_fetched(kernel: Target) -> bool:
    image, _ = packages.check(packages.cache_folder() / "kernels" / kernel.name)
    return image is not None


def _status(
    kernel: Target,
    command: Sequence[str],
    timeout: float,
    streams: tuple[_Lines, _Lines],
    cancel: threading.Event,
) -> str:
    """Run the guest; returns why it did not end well, or "". LabError if no machine ran it."""
    stdout, stderr = streams
    if kernel.boots is not None:
        status = vm.run(
            kernel.boots, command, timeout=timeout, stdout=stdout, stderr=stderr, cancel=cancel
        )
    else:
        status = _run_here(command, timeout, stdout, stderr)
    if status == 128 + signal.SIGTERM:
        return f"the guest did not end within {timeout:g} s"
    return f"the guest ended with status {status}" if status else ""


def _run_here(command: Sequence[str], timeout: float, stdout: _Lines, stderr: _Lines) -> int:
    child = subprocess.Popen(
        command,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    errors = child.stderr
    with child:
        listener = threading.Thread(target=lambda: _copy(errors, stderr))
        timer = threading.Timer(timeout, child.terminate)
        listener.start()
        timer.start()
        try:
            _copy(child.stdout, stdout)
            return child.wait()
        finally:
            timer.cancel()
            child.terminate()  # it takes its mounts down; nothing if it has ended
            listener.join()


def _copy(source: IO[bytes], target: _Lines) -> None:
    while data := source.read(65536):
        target.write(data)
