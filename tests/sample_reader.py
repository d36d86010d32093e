"""The kernel's own sample reader of FAN_FS_ERROR, ``samples/fanotify/fs-monitor.c``.

Out of Debian's source package, which kernel-patch/ uses too, and compiled as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.packages import cache_folder
from tests.exec_clients import COMPILER

ROOT = Path(__file__).parents[1]
_MEMBER = "samples/fanotify/fs-monitor.c"


@dataclass(frozen=True)
class Report:
    """What the sample prints of one event; ``where`` is its decoded file handle."""

    length: int
    fsid: str
    where: str
    error: int
    count: int


def sample_source() -> Path:
    """Its source, which is kept in the cache.

    Raises LabError if the source package cannot be had.
    """
    deb = _source_package()
    source = cache_folder() / "sources" / f"{deb.stem}_fs-monitor.c"
    if not source.exists():
        new = source.with_suffix(f".{os.getpid()}")
        new.write_bytes(_extracted(deb))
        new.rename(source)
    return source


def compile_sample(directory: Path) -> Path:
    """The program, made in ``directory``. Raises LabError as `sample_source`."""
    program = directory / "fs-monitor"
    subprocess.run([str(COMPILER), "-o", str(program), str(sample_source())], check=True)
    return program


def _source_package() -> Path:
    program = "import tree; print(tree.fetch(tree.base()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/kernel-patch"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"no source package: {done.stderr.strip().splitlines()[-1]}")
    return Path(done.stdout.strip())


def _extracted(deb: Path) -> bytes:
    """One file of the source tree, without unpacking the rest."""
    listed = subprocess.run(["dpkg-deb", "-c", deb], capture_output=True, text=True, check=True)
    (archive,) = re.findall(r"(\./usr/src/(linux-source-\S+)\.tar\.xz)$", listed.stdout, re.M)
    # tar ends after the file: what is before it in the pipe may fail then
    pipe = (
        'dpkg-deb --fsys-tarfile "$1" | tar -xO "$2" | xz -dc -T0 | '
        f'tar -xO --occurrence=1 "$3/{_MEMBER}"'
    )
    done = subprocess.run(["sh", "-c", pipe, "sh", deb, *archive], capture_output=True, check=False)
    if not done.stdout:
        raise LabError(f"{deb.name} has no {_MEMBER}")
    return done.stdout


_EVENT = (
    r"FAN_FS_ERROR \(len=(\d+)\)\n\tfsid: (\w+)\n\tfh: \w*\n\tdecoded fh: (.*)\n"
    r"\tGeneric Error Record: len=12\n\terror: (-?\d+)\n\terror_count: (\d+)\n---\n\n"
)


def reports_in(lines: Sequence[str]) -> list[Report]:
    """The complete reports in ``lines`` of the sample, adjacent ones of one error as one.

    Raises AssertionError if there is anything else between them.
    """
    text, end, _ = "".join(f"{line}\n" for line in lines).rpartition("---\n\n")
    text += end
    assert re.fullmatch(f"({_EVENT})*", text), text
    reports: list[Report] = []
    for length, fsid, where, error, count in re.findall(_EVENT, text):
        report = Report(int(length), fsid, where, int(error), int(count))
        if reports and reports[-1] == replace(report, count=reports[-1].count):
            report = replace(report, count=report.count + reports.pop().count)
        reports.append(report)
    return reports
