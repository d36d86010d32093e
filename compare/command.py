"""What ``fserr-bpf compare`` does: choose, play, judge, show, report, keep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from compare import capture, harness, judge, report, terminal, tolerances
from compare.cells import Cell
from compare.scenarios import SCENARIOS
from fserr_bpf.errors import PrivilegeError, UsageError
from fserr_bpf.model.stream import Stream


class Request(NamedTuple):
    """What the user asked for; ``words`` are those of the command line, behind the program.
    ``version`` is that of fserr-bpf.

    Without ``kernels`` it is the running one; without ``scenarios`` all, which are
    patterns otherwise. ``timeout`` is in seconds, for one kernel.
    """

    kernels: tuple[str, ...]
    modules: Path | None
    scenarios: tuple[str, ...]
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
    names = _chosen(request.scenarios)
    targets = [harness.target(name, request.modules) for name in request.kernels or (harness.HERE,)]
    if any(target.boots is None for target in targets) and os.geteuid() != 0:
        raise PrivilegeError("scratch file systems and probes need root", "use sudo")
    if request.report:
        report.check(request.report)
    allowed = tolerances.load()
    started = datetime.now(UTC)
    begin = time.monotonic()
    with terminal.Progress([target.name for target in targets], len(names)) as progress:

        def heard(cell: Cell) -> None:
            progress.heard(judge.judge(cell, allowed))

        order = harness.Order(names, request.stream, request.timeout)
        with _terminated_as_interrupt():
            cells = harness.run(targets, order, request.jobs, heard)
    judged = [judge.judge(cell, allowed) for cell in cells]
    stale = tolerances.stale(allowed, judged)
    print("\n".join(terminal.table(judged, stale)), flush=True)
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
            raise UsageError(f"no scenario fits {pattern!r}", "compare --list names them")
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
