"""What a process may write to once it has given that up: tried, in a child."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.live.conftest import kernel_version, skip

SCRIPT = """
import os, sys, threading
from fserr_bpf.kernel.landlock import write_only_below
from fserr_bpf.kernel.privileges import set_no_new_privs
allowed, other = sys.argv[1:]
held = open(os.path.join(other, "held"), "w")
set_no_new_privs()
if not write_only_below([allowed]):
    sys.exit(77)

def attempt(name, do):
    try:
        do()
        print(name, "done")
    except OSError as error:
        print(name, error.strerror)

def attempts():
    attempt("new there", lambda: open(os.path.join(allowed, "new"), "w").close())
    attempt("rename there", lambda: os.rename(allowed + "/new", allowed + "/newer"))
    attempt("held", lambda: (held.write("x"), held.flush()))
    attempt("new elsewhere", lambda: open(os.path.join(other, "new"), "w"))
    attempt("append", lambda: open(os.path.join(other, "held"), "a"))
    attempt("remove", lambda: os.unlink(os.path.join(other, "held")))
    attempt("folder", lambda: os.mkdir(os.path.join(other, "folder")))
    attempt("read", lambda: open(os.path.join(other, "held")).close())
    attempt("null", lambda: open("/dev/null", "w").close())

thread = threading.Thread(target=attempts)
thread.start()
thread.join()
"""


def test_writes_are_refused_elsewhere(tmp_path: Path) -> None:
    """In a thread that was started afterwards, as those of outputs are."""
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, allowed, other], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        skip("this kernel has no Landlock", expected=kernel_version() < (5, 13))
    assert done.stderr == ""
    refused = dict.fromkeys(("new elsewhere", "append", "remove", "folder"), "Permission denied")
    lines = [line for line in done.stdout.splitlines() if "denied" not in line]
    assert dict(line.rpartition(" ")[::2] for line in lines) == dict.fromkeys(
        ("new there", "rename there", "held", "read", "null"), "done"
    )
    for name, why in refused.items():
        assert f"{name} {why}\n" in done.stdout
    assert (other / "held").read_text() == "x"
