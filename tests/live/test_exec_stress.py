"""Some rounds of ``stress.py``.

By hand ``python -m tests.live.stress 1800 1`` runs for half an hour.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import IN_LAB, require_mark

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems", "scratch_space"),
    pytest.mark.skipif(IN_LAB, reason="the lab's root is a chroot: no user namespaces"),
]

SECONDS, SEED = 10, 1
TIMEOUT = 200


@pytest.mark.threat("long-run")
def test_what_is_to_live_lives_and_nothing_is_left() -> None:
    require_mark()
    command = [sys.executable, "-m", "tests.live.stress", str(SECONDS), str(SEED)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert " rounds; killed: " in done.stdout
