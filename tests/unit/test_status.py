"""``fserr-bpf status`` is what a health check calls: it imports little, so that it is quick."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from fserr_bpf.cli import main
code = main(["status", "/"])
print(*sorted(name for name in sys.modules if name.startswith("fserr_bpf.")))
print(*sorted(name for name in sys.modules if name in ("bcc", "msgpack", "rich", "elftools")))
sys.exit(code)
"""
UNITS = {"children", "cli", "closing", "codec", "errors", "kernel", "model", "outputs", "service"}


def test_nothing_of_the_monitor_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.returncode in (0, 12)
    *_, ours, others = done.stdout.split("\n")[:-1]
    units = {name.split(".")[1] for name in ours.split()}
    assert units == UNITS | {"state", "uapi"}
    assert others == ""
