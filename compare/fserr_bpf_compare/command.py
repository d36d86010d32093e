"""What ``fserr-bpf compare`` does: choose, run, judge, show, report, keep."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from fserr_bpf.errors import PrivilegeError, UsageError
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.text import printable
from fserr_bpf_compare import report
from fserr_bpf_compare.harness import collect, imagecells, start
from fserr_bpf_compare.images import files
from fserr_bpf_compare.images.files import ImageFile
from fserr_bpf_compare.report import capture, imagetable, terminal
from fserr_bpf_compare.scenarios import SCENARIOS
from fserr_bpf_compare.verdict import judge, tolerances
from fserr_bpf_compare.verdict.cells import Cell

_OTHERS = 5  # files that are no images, by name


class Request(NamedTuple):
    """What the user asked for; ``words`` are those of the command line, behind the program.
    ``version`` is that of fserr-bpf.

    Without ``kernels`` it is the running one; without ``scenarios`` all, which are
    patterns otherwise. With ``images``, files and folders, it is these instead of scenarios.
    ``timeout`` is in seconds, for one kernel.
    """

    kernels: tuple[str, ...]
    modules: Path | None
    scenarios: tuple[str, ...]
    images: tuple[Path, ...]
    stream: Stream | None
    report: Path | None
    capture: Path | None
    jobs: int
    timeout: float
    words: tuple[str, ...]
    version: str


def run(request: Request) -> int:
    """Return the exit status of the command: 0, 1, 2 or 3.

    Raises FserrError subclasses if nothing could be started.
    """
    names = () if request.images else _chosen(request.scenarios)
    images = _images(request.images) if request.images else ()
    targets = [start.target(name, request.modules) for name in request.kernels or (start.HERE,)]
    if any(target.boots is None for target in targets) and os.geteuid() != 0:
        raise PrivilegeError("scratch file systems and probes need root", "use sudo")
    if request.report:
        report.check(request.report)
    # what is tolerated is known of scenarios; a file may be called like one
    allowed = () if images else tolerances.load()
    started = datetime.now(UTC)
    begin = time.monotonic()
    kernels = [target.name for target in targets]
    noun = "images" if images else "scenarios"
    with terminal.Progress(kernels, len(images or names), noun) as progress:

        def on_cell(cell: Cell) -> None:
            progress.add(judge.judge(cell, allowed))

        with _terminated_as_interrupt():
            if images:
                plays = imagecells.ImageOrder(images, request.stream, request.timeout)
                cells = imagecells.cells(targets, plays, request.jobs, on_cell)
            else:
                order = collect.Order(names, request.stream, request.timeout)
                cells = collect.cells(targets, order, request.jobs, on_cell)
    judged = [judge.judge(cell, allowed) for cell in cells]
    stale = tolerances.stale(allowed, judged)
    lines = imagetable.table(judged) if images else terminal.table(judged, stale)
    print("\n".join(lines), flush=True)
    if request.capture:
        capture.keep(request.capture, cells)
    if request.report:
        facts = report.Run(
            command=("fserr-bpf", *request.words),
            host_release=os.uname().release,
            started=started,
            seconds=time.monotonic() - begin,
            version=request.version,
        )
        report.write(request.report, judged, facts)
        print(f"report: {request.report / 'index.html'}", flush=True)
    return judge.verdict(judged, stale)


def _images(paths: Sequence[Path]) -> tuple[ImageFile, ...]:
    """The images to play; says on standard error what is none."""
    found = files.find(paths)
    known = ", ".join(files.DRIVERS)
    if not found.images:
        raise UsageError(f"no file holds an image of {known}", "give images, or folders of them")
    if others := found.others:
        some = ", ".join(printable(path.name) for path in others[:_OTHERS])
        more = f" and {len(others) - _OTHERS} more" if len(others) > _OTHERS else ""
        print(f"compare: no image of {known}: {some}{more}", file=sys.stderr, flush=True)
    return found.images


def list_scenarios() -> int:
    """Print name, area and summary of each."""
    width = max(len(scenario.name) for scenario in SCENARIOS)
    for scenario in SCENARIOS:
        print(f"{scenario.name:{width}}  {scenario.summary}")
    return 0


def _chosen(patterns: Sequence[str]) -> tuple[str, ...]:
    """Names in the order of the table; UsageError for a pattern that fits none."""
    names = [scenario.name for scenario in SCENARIOS]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"no scenario matches {pattern!r}", "list the names with compare --list"
            )
    return tuple(
        name for name in names if not patterns or any(fnmatchcase(name, p) for p in patterns)
    )


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C: machines and mounts must not outlive the command."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
