"""Many groups under ``fserr-bpf exec``, and a standard error that nobody reads."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.exec_clients import COMPILER, SOURCES, compile_c, under_exec
from tests.live.conftest import DEADLINE_SECONDS
from tests.live.exec_scenarios import GROUP
from tests.live.test_exec_process import BOTH, mark, trigger

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

GROUPS = 40  # by hand 100: fs.fanotify.max_user_groups is 128, and other tests need some
SMALLEST_PIPE = 4096
CALLS = 1200  # more lines than wait for standard error


@pytest.fixture(scope="module")
def fs(file_systems: None) -> Iterator[Scratch]:
    with scratch("ext4") as fs:
        yield fs


@BOTH
def test_what_is_readable_stays_so(fs: Scratch, options: tuple[str, ...]) -> None:
    """After one error of 100 groups: each is readable from its first moment on."""
    cause = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    client = (sys.executable, SOURCES / "many.py", fs.mount_point, cause, str(GROUPS))
    told = subprocess.run(
        under_exec(*client, options=options),
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    ).stdout
    assert told == f"readable {GROUPS}, lost 0\n"


@BOTH
@pytest.mark.threat("standard-error")
def test_a_standard_error_that_takes_nothing_stops_nothing(
    fs: Scratch, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Lines wait, then they are counted; groups are made, marked and fed."""
    program = compile_c(tmp_path, "reader")
    output, full = os.pipe()
    fcntl.fcntl(full, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    os.write(full, b"\n" * SMALLEST_PIPE)
    made = [GROUP, mark(fs), "close"] * CALLS
    words = (*made, GROUP, mark(fs), trigger(fs), "errors:1", "say:heard", "wait")
    command = under_exec(program, *words, options=(*options, "--report-takeover"))
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=full, text=True) as client:
        os.close(full)
        assert client.stdout is not None
        assert client.stdin is not None
        said = list(iter(client.stdout.readline, "waiting\n"))
        assert "heard\n" in said
        # too many groups of this user, which others have too
        refused = said.count(f"{GROUP}: EMFILE\n")
        told = bytearray()
        while b"lines lost" not in told:
            told += os.read(output, 1 << 16)
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.wait(DEADLINE_SECONDS) == 0
    while more := os.read(output, 1 << 16):
        told += more
    os.close(output)
    lines = told.decode().split("\n")
    lost = [int(n) for line in lines for n in re.findall(r": (\d+) lines lost", line)]
    written = [line for line in lines if line and "lines lost" not in line]
    # of each group its mark and its end, of one that was refused the mark, and one of all calls
    assert len(written) + sum(lost) == 2 * (CALLS + 1) + 1 - refused
    assert sum(lost) > CALLS // 2
