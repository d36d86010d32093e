"""The report of a run: a page for people, JSON for programs, JUnit XML for CI.

`docs/compare-report.md` describes what is written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf.errors import FserrError, OutputError
from fserr_bpf_compare.report import document, junit
from fserr_bpf_compare.report.run import Run
from fserr_bpf_compare.verdict.cells import Judged

__all__ = ["Run", "check", "write"]


def check(directory: Path) -> None:
    """Ask before the run what would be a pity after it; makes ``directory``.

    Raises FserrError without Jinja2, OutputError if nothing can be written there.
    """
    try:
        import jinja2  # noqa: F401, PLC0415
    except ImportError as error:
        raise FserrError(
            "--report needs Jinja2", "run pip install 'fserr-bpf[compare]', or make compare"
        ) from error
    with _staging(directory):
        pass


def write(directory: Path, judged: Sequence[Judged], run: Run) -> None:
    """Write index.html, report.json and junit.xml; those that are there stay until all are whole.

    Raises OutputError if the directory or a file cannot be written.
    """
    from fserr_bpf_compare.report import page  # noqa: PLC0415

    files = {
        "index.html": page.render(judged, run),
        "report.json": document.render(judged, run),
        "junit.xml": junit.render(judged, run),
    }
    with _staging(directory) as staging:
        for name, text in files.items():
            (staging / name).write_bytes(text.encode())
        for name in files:
            os.replace(staging / name, directory / name)


@contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=directory) as staging:
            yield Path(staging)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"cannot write the report to {directory}: {reason}", "give another --report"
        ) from error
