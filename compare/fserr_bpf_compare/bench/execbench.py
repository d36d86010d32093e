"""What ``fserr-bpf exec`` costs a client: its two calls, all others, and the wait for an event."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.errors import LabError
from fserr_bpf_compare.bench import bareasking
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch

CALL_TARGET = 3  # times the least that asking a supervisor costs
INIT_TARGET = 1.25  # times what fanotify_init(2) takes natively
OTHER_TARGET = 50  # nanoseconds more for every other system call
EVENT_TARGET = 10e6  # nanoseconds from the error to the read, the 99th of 100

_TIMEOUT = 120.0  # seconds


class Times(NamedTuple):
    """Nanoseconds: medians of one call, and the 99th of 100 events from error to read.

    ``mark`` is a group's first for errors, ``ordinary`` one for other events.
    """

    init: float
    mark: float
    ordinary: float
    other: float
    event: float
    event_p99: float


def client(folder: Path) -> Path:
    """The program that times itself, made in ``folder``; LabError without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise LabError("cc is not installed", "run apt-get install gcc libc6-dev")
    program = folder / "exectimes"
    run(compiler, "-O1", "-o", str(program), str(Path(__file__).with_name("exectimes.c")))
    return program


def times(program: Path, fs: Scratch, options: Sequence[str] | None) -> Times:
    """One run on ``fs``: natively for None, else under ``fserr-bpf exec`` with ``options``."""
    before: list[str] = []
    if options is not None:
        command = Path(sys.executable).with_name("fserr-bpf")
        before = [str(command), "exec", *options, "--"]
    trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    done = subprocess.run(
        [*before, str(program), str(fs.mount_point), trigger],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise LabError(f"{program.name}: {done.stderr.strip() or done.returncode}")
    found = _numbers(done.stdout)
    events = found["event"]
    return Times(
        init=statistics.median(found["init"]),
        mark=statistics.median(found["mark"]),
        ordinary=statistics.median(found["ordinary"]),
        other=statistics.median(found["other"]),
        event=statistics.median(events),
        event_p99=events[len(events) * 99 // 100],
    )


def _numbers(output: str) -> dict[str, list[float]]:
    lines = (line.split() for line in output.splitlines())
    return {name: sorted(map(float, numbers)) for name, *numbers in lines}


class Measured(NamedTuple):
    """``asking``: nanoseconds of a mark that the least of all supervisors lets through."""

    asking: float
    times: dict[str, Times]


def measure() -> Measured:
    """Natively, and under exec by default and with --exact. Raises LabError."""
    with scratch("ext4") as fs, tempfile.TemporaryDirectory() as folder:
        program = client(Path(folder))
        try:
            asked = bareasking.output_of([str(program), str(fs.mount_point)], _TIMEOUT)
        except subprocess.SubprocessError as error:
            raise LabError(f"{program.name}: {error}") from error
        asking = statistics.median(_numbers(asked)["ordinary"])
        found = {
            "native": times(program, fs, None),
            "exec": times(program, fs, ()),
            "exec --exact": times(program, fs, ("--exact",)),
        }
    return Measured(asking, found)
