"""What a command lacks around it is one line with the remedy, before anything is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fserr_bpf.errors import FserrError, KernelError, PrivilegeError
from fserr_bpf_compare.faults.scratch import run
from tests.live.conftest import skip
from tests.live.test_run_cli import COMMAND, refused

pytestmark = pytest.mark.root

COMMANDS = [
    ("run",),
    ("run", "--detail", "/"),
    ("watch-files", "--glob", "/srv/*"),
    ("top", "--once"),
    ("probes",),
]


@pytest.mark.usefixtures("fast_attaching")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("limit", [12, 24])
def test_too_few_descriptors(command: tuple[str, ...], limit: int) -> None:
    """Few are missing for a child, for its answer, for what is opened after that."""
    status, line = refused("prlimit", f"--nofile={limit}", COMMAND, *command)
    assert line == f"fserr-bpf: {limit} open files are not enough; raise the limit with ulimit -n"
    assert status == FserrError.exit_code


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_procfs(command: tuple[str, ...]) -> None:
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"')
    status, line = refused(*hidden, COMMAND, *command)
    assert line == (
        "fserr-bpf: /proc is not the procfs of this process's pid namespace; "
        "mount -t proc proc /proc"
    )
    assert status == KernelError.exit_code


@pytest.mark.parametrize(
    ("arguments", "lacking"),
    [
        (("run", "--user", "nobody", "/"), "setuid"),
        (("watch-files", "--glob", "/srv/*", "--hook-user", "nobody"), "setgid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_root_without_a_capability(arguments: tuple[str, ...], lacking: str) -> None:
    """As in a container; nothing is attached before."""
    without = ("setpriv", f"--bounding-set=-{lacking}", f"--inh-caps=-{lacking}")
    status, line = refused(*without, COMMAND, *arguments)
    name = f"CAP_{lacking.upper()}"
    assert line == f"fserr-bpf: {name} is missing, which giving up rights needs; give it {name}"
    assert status == PrivilegeError.exit_code


GIVES_UP = """
import os
from fserr_bpf.kernel.privileges import drop

drop(None, ())
os.execv("/bin/cat", ["cat", "/proc/self/status"])
"""


def test_rights_are_given_up_without_cap_setpcap() -> None:
    """The bounding set stays then; because of no_new_privs root gets nothing back by execve(2)."""
    without = ("setpriv", "--bounding-set=-setpcap", "--inh-caps=-setpcap")
    shown = run(*without, sys.executable, "-c", GIVES_UP)
    fields = dict(line.split(":\t") for line in shown.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapBnd"], 16) != 0
    assert [int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4


def test_lockdown_is_read_without_securityfs(tmp_path: Path) -> None:
    """That it is obeyed needs a machine that is rebooted: tests/live/test_lab.py has one."""
    run("mount", "-t", "securityfs", "none", str(tmp_path))
    try:
        there = tmp_path / "lockdown"
        expected = there.read_text() if there.exists() else ""
    finally:
        run("umount", str(tmp_path))
    if not expected:
        skip("this kernel cannot be locked down", expected=True)
    script = "from fserr_bpf.kernel.lockdown import state; print(state(), end='')"
    hidden = (
        "unshare",
        "-m",
        "sh",
        "-c",
        'mount -t tmpfs none /sys/kernel/security; exec "$0" "$@"',
    )
    done = subprocess.run(
        [*hidden, sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (expected, "")
    assert "[confidentiality]" not in expected, "then no test could attach anything"
