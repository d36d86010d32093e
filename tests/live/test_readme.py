"""The README's monitor, typed in as it stands, on a scratch file system."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from compare.scratch import scratch
from tests.live.conftest import BY_NAME

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
ROOT = Path(__file__).parents[2]
TRIGGER = BY_NAME["ext4_trigger"]


def test_monitor_example() -> None:
    found = re.search(
        r"```python\n(from fserr_bpf import .*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert found is not None
    with scratch("ext4") as fs:
        code = found[1].replace("/srv", str(fs.mount_point))
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            try:
                assert child.stdout.readline() == f"watching {fs.mount_point}\n"
                caused = TRIGGER.cause(fs)
                line = child.stdout.readline()
            finally:
                child.kill()
    assert line.startswith("FsErrorEvent(fsid=Fsid(")
    assert f"handle=None, error=117, error_count=1, pid={caused.pid}, " in line
