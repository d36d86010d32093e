"""A monitor in a pid namespace reports the pids of that namespace, as a real group does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fserr_bpf.codec.fanotify import decode
from fserr_bpf.model.event import FsErrorEvent

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]


def in_new_namespace(fault: str, stream: str) -> tuple[int, bytes, bytes]:
    """Pid of the culprit in the new namespace, emulated bytes, real bytes."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable]
    done = subprocess.run(
        [*command, "-m", "tests.live.in_namespace", fault, stream],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pid, emulated, real = done.stdout.split()
    return int(pid), bytes.fromhex(emulated.strip("-")), bytes.fromhex(real.strip("-"))


def test_pid_is_that_of_the_readers_namespace() -> None:
    # writeback errors carry the pid of the task that called fsync, on every kernel here
    pid, emulated, _ = in_new_namespace("ext4_writeback", "proposed")
    event, _ = decode(emulated)
    assert isinstance(event, FsErrorEvent)
    assert event.pid == pid
    assert pid < 1000, "not a number of a namespace that was made a moment ago"
