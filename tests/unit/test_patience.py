"""Who is blocked, and whose patience is over: real processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from fserr_bpf.state.patience import LOOK_SECONDS, Patience, is_blocked
from tests.patience import Deadline


def test_who_sleeps_is_blocked_and_who_runs_is_not() -> None:
    with (
        subprocess.Popen(["sleep", "1000"]) as sleeps,
        subprocess.Popen(["yes"], stdout=-3) as runs,
    ):
        deadline = Deadline(10)
        while not is_blocked(sleeps.pid) and not deadline.has_expired():  # it may still start
            pass
        assert is_blocked(sleeps.pid)
        blocked = [is_blocked(runs.pid) for _ in range(100)]
        patience = Patience(sleeps.pid, 3 * LOOK_SECONDS)
        assert [patience.is_over() for _ in range(4)] == [False, False, True, True]
        patience = Patience(runs.pid, 1000 * LOOK_SECONDS)
        over = any(patience.is_over() for _ in range(100))
        for process in (sleeps, runs):
            process.kill()
    assert not all(blocked)
    assert not over


def test_one_thread_that_runs_is_enough() -> None:
    """This process runs the test, whatever its other threads do."""
    assert not is_blocked(os.getpid())


def test_who_has_gone_is_not_blocked() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert not Path(f"/proc/{process.pid}").exists()
    assert not is_blocked(process.pid)
