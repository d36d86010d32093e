"""Starts a guest program: a child process here, a command in a QEMU machine elsewhere."""

from __future__ import annotations

import io
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import fserr_bpf
from fserr_bpf.children.spawn import command_of
from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines import packages, vm
from fserr_bpf_compare.machines.bootable import bootable
from fserr_bpf_compare.machines.kernels import Kernel
from fserr_bpf_compare.machines.packages import Image
from fserr_bpf_compare.verdict.cells import Cell

HERE = "here"
# where our packages lie: in a checkout two folders, installed one
_PATHS = [Path(fserr_bpf.__file__).parents[1], Path(__file__).parents[2]]
_STDERR_LINES = 3  # of a guest that failed, at the end of the reason
_POLL = 0.05  # seconds


class Target(NamedTuple):
    """A kernel to compare on: its name in the cells, and None or what vm.run() boots."""

    name: str
    boots: Kernel | Image | None


class Ending(NamedTuple):
    """How a guest ended: ``trouble`` is why it failed, or "".

    ``machine``: no machine ran it, because the kernel could not be fetched.
    """

    trouble: str
    machine: bool = False


def target(name: str, modules: Path | None = None) -> Target:
    """The running kernel ("here"), or what `bootable` says; raises what that does."""
    return Target(name, None if name == HERE else bootable(name, modules))


def of_all(
    targets: Sequence[Target],
    jobs: int,
    cells_of: Callable[[Target, threading.Event], list[Cell]],
) -> list[Cell]:
    """What ``cells_of`` gives for each target, in order; ``jobs`` of them run at a time.

    It is called in several threads, and has to end soon once the event is set.
    """
    cancel = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            found = pool.map(lambda kernel: cells_of(kernel, cancel), targets)
            return [cell for cells in found for cell in cells]
        except BaseException:  # Ctrl-C too: the machines must not run on
            cancel.set()
            pool.shutdown(cancel_futures=True)
            raise


def run(
    kernel: Target,
    arguments: Sequence[str],
    timeout: float,
    take: Callable[[bytes], None],
    cancel: threading.Event,
) -> Ending:
    """Run the guest program ``arguments`` to its end, at most ``timeout`` seconds.

    ``arguments`` are a module and its words. ``take`` gets each line that it prints.
    """
    command = command_of(*arguments)
    stderr: list[bytes] = []
    streams = (_Lines(take), _Lines(stderr.append))
    try:
        status = _status(kernel, command, timeout, streams, cancel)
        trouble = f"the guest ended with status {status}" if status else ""
    except LabError as error:
        trouble = str(error)
        if not (kernel.boots is None or isinstance(kernel.boots, Image) or _is_fetched(kernel)):
            return Ending(trouble, machine=True)
    if trouble and stderr:
        last = b" | ".join(stderr[-_STDERR_LINES:]).decode(errors="backslashreplace")
        trouble = f"{trouble}: {last}"
    return Ending(trouble)


def _is_fetched(kernel: Target) -> bool:
    image, _ = packages.check(packages.cache_folder() / "kernels" / kernel.name)
    return image is not None


def _status(
    kernel: Target,
    command: Sequence[str],
    timeout: float,
    streams: tuple[_Lines, _Lines],
    cancel: threading.Event,
) -> int:
    """Its exit status; LabError if it did not end in time or no machine ran it."""
    stdout, stderr = streams
    if kernel.boots is None:
        return _run_here(command, timeout, streams, cancel)
    return vm.run(
        kernel.boots, command, timeout=timeout, stdout=stdout, stderr=stderr, cancel=cancel
    )


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


def _run_here(
    command: Sequence[str],
    timeout: float,
    streams: tuple[_Lines, _Lines],
    cancel: threading.Event,
) -> int:
    child = subprocess.Popen(
        command,
        cwd=_PATHS[0],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, _PATHS))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    output, errors = child.stdout, child.stderr
    late, ended = threading.Event(), threading.Event()
    deadline = time.monotonic() + timeout

    def end_in_time() -> None:
        while not ended.wait(_POLL):
            if time.monotonic() > deadline:
                late.set()
            if late.is_set() or cancel.is_set():
                child.terminate()
                return

    with child:
        listener = threading.Thread(target=lambda: _copy(errors, streams[1]))
        timer = threading.Thread(target=end_in_time)
        listener.start()
        timer.start()
        try:
            _copy(output, streams[0])
            status = child.wait()
        finally:
            ended.set()
            child.terminate()  # it takes its mounts down; nothing if it has ended
            timer.join()
            listener.join()
    # not by its status: a guest that has just started has no handler for the signal yet
    if status and late.is_set():
        raise LabError(f"the guest did not end within {timeout:g} s")
    return status


def _copy(source: IO[bytes], target: _Lines) -> None:
    while data := source.read(65536):
        target.write(data)
