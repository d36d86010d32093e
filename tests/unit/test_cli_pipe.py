"""A reader that leaves early ends a command with a number, not with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fserr_bpf.errors import OutputError


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_closed_pipe(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from fserr_bpf.cli import entry; entry()", "lab", "list"],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == OutputError.exit_code
