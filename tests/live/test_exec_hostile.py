"""What clients do to ``fserr-bpf exec``: each row of docs/exec-security.md about paths and waits.

All attempts are of one client (``hostile.py``), which runs while this module does: it says after
each whether other groups are served. It runs in a mount namespace of its own together with
the supervisor, so that it may put things over /proc.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from fserr_bpf_compare.faults.scratch import scratch
from tests.exec_clients import under_exec
from tests.live.attacker import TOKEN
from tests.live.conftest import IN_LAB, require_mark
from tests.live.hostile import ATTEMPTS

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems", "scratch_space"),
    pytest.mark.skipif(IN_LAB, reason="the lab's root is a chroot: no user namespaces"),
    pytest.mark.xdist_group("hostile"),
]

SCRIPT = Path(__file__).with_name("hostile.py")
TIMEOUT = 240
EVERYBODY = ("root", "nobody", "user", "mount", "pid")

WANTED: dict[str, dict[str, str]] = {
    # paths are not found, groups are made, and no FIFO there was opened by anybody
    "own_proc": dict.fromkeys(EVERYBODY, "ENOENT None None []"),
    "over_proc": {"root": "[]"},
    "withheld_memory": dict.fromkeys(("root", "nobody", "user", "mount"), "waited"),
    "silent_server": dict.fromkeys(EVERYBODY, "waited"),
    "kept_out": {"nobody": "EACCES"},
    "frozen": {"root": "None", "nobody": "None"},
    "many_blocked": {"nobody": "None"},
    "flush_without_right": dict.fromkeys(("nobody", "user"), "EPERM True"),
    "killed_calls": dict.fromkeys(("root", "nobody", "user"), "gone"),
    "threads_in_calls": {"root": "None"},
    "stopped_caller": dict.fromkeys(("root", "nobody"), "stopped"),
    "killed_worker": dict.fromkeys(("root", "nobody", "user"), "EINTR"),
    "descriptor_of_a_silent_file": {"root": "EBADF"},
}


def test_every_attempt_is_made() -> None:
    assert WANTED.keys() == ATTEMPTS.keys()


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """The result of each attempt, by "NAME:WHO"."""
    require_mark()
    words = [f"{name}:{who}" for name, results in WANTED.items() for who in results]
    # not one of pytest's, which takes the rights of others away from these
    with TemporaryDirectory() as directory, scratch("ext4") as fs:
        for path in (Path(directory), fs.mount_point, fs.mount_point.parent):
            path.chmod(0o755)
        trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
        client = [sys.executable, SCRIPT, fs.mount_point, trigger, directory, *words]
        environment = {**os.environ, TOKEN: str(uuid4()), "PYTHONPATH": str(SCRIPT.parents[2])}
        done = subprocess.run(
            ["unshare", "--mount", *under_exec(*map(str, client))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    found = (line.partition(" ") for line in done.stdout.splitlines())
    return {word: result for word, _, result in found}


def results(said: dict[str, str], name: str) -> dict[str, str]:
    return {who: said[f"{name}:{who}"] for who in WANTED[name]}


@pytest.mark.threat("identity", "clients-proc")
def test_folder_of_the_client_as_proc(said: dict[str, str]) -> None:
    """Its files are FIFOs: who opened one would wait for ever."""
    assert results(said, "own_proc") == WANTED["own_proc"]


@pytest.mark.threat("identity", "settings")
def test_mount_over_proc_of_the_supervisor(said: dict[str, str]) -> None:
    assert results(said, "over_proc") == WANTED["over_proc"]


@pytest.mark.threat("memory-waits")
def test_memory_that_userfaultfd_withholds(said: dict[str, str]) -> None:
    assert results(said, "withheld_memory") == WANTED["withheld_memory"]


@pytest.mark.threat("path-waits")
def test_file_server_that_does_not_answer(said: dict[str, str]) -> None:
    assert results(said, "silent_server") == WANTED["silent_server"]


@pytest.mark.threat("path-waits")
def test_threads_of_one_process_wait_apart(said: dict[str, str]) -> None:
    assert results(said, "threads_in_calls") == WANTED["threads_in_calls"]


@pytest.mark.threat("file-server-rights")
def test_file_server_of_root_only(said: dict[str, str]) -> None:
    assert results(said, "kept_out") == WANTED["kept_out"]


@pytest.mark.threat("frozen")
def test_frozen_file_system(said: dict[str, str]) -> None:
    assert results(said, "frozen") == WANTED["frozen"]


@pytest.mark.threat("share")
def test_share_of_a_user(said: dict[str, str]) -> None:
    assert results(said, "many_blocked") == WANTED["many_blocked"]


@pytest.mark.threat("flush")
def test_flush_without_the_right_to_mark(said: dict[str, str]) -> None:
    assert results(said, "flush_without_right") == WANTED["flush_without_right"]


@pytest.mark.threat("caller-vanishes", "own-group")
def test_callers_that_are_killed(said: dict[str, str]) -> None:
    """Neither descriptors nor processes stay."""
    assert results(said, "killed_calls") == WANTED["killed_calls"]


@pytest.mark.threat("caller-stops")
def test_caller_that_is_stopped(said: dict[str, str]) -> None:
    assert results(said, "stopped_caller") == WANTED["stopped_caller"]


@pytest.mark.threat("worker-dies")
def test_worker_that_is_killed(said: dict[str, str]) -> None:
    assert results(said, "killed_worker") == WANTED["killed_worker"]


@pytest.mark.threat("group-descriptor")
def test_descriptor_of_a_file_server(said: dict[str, str]) -> None:
    assert results(said, "descriptor_of_a_silent_file") == WANTED["descriptor_of_a_silent_file"]
