"""Descriptors under ``fserr-bpf exec``: none leaks, and who has none left gets EMFILE."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.exec_clients import COMPILER, SOURCES, Running, compile_c, under_exec
from tests.live.conftest import DEADLINE_SECONDS, wait_until
from tests.live.exec_scenarios import GROUP
from tests.live.test_exec_deaths import descriptors_of
from tests.live.test_exec_process import BOTH, counts, mark, taken, trigger

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

FAN_EPIDFD = -2
TIMES = 1000
MOST_GROUPS = 40  # far below fs.fanotify.max_user_groups, which other tests need too
TOO_FEW = 24


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C."""
    return compile_c(tmp_path_factory.mktemp("reader"), "reader")


@pytest.fixture(scope="module")
def fs(file_systems: None) -> Iterator[Scratch]:
    with scratch("ext4") as fs:
        yield fs


@BOTH
@pytest.mark.threat("descriptors")
def test_events_with_pidfds_leave_none_behind(
    tmp_path: Path, fs: Scratch, options: tuple[str, ...]
) -> None:
    """2000 of them; a million by hand. No number of the supervisor's reaches the client."""
    client_of = (sys.executable, SOURCES / "churn.py", fs.mount_point, str(TIMES))
    with taken(tmp_path, *client_of, options=options, says="marked") as client:
        supervisor = client.supervisor()
        before = descriptors_of(supervisor)
        client.go_on()
        wait_until(lambda: len(client.lines()) > 1, "the client to have read all")
        assert client.lines()[1] == str({FAN_EPIDFD: 2 * TIMES})
        assert descriptors_of(supervisor) == before
        client.go_on()
        assert client.end() == 0


def limited(limit: int, *command: str) -> list[str]:
    """The command with so many descriptors, for whoever descends from it too."""
    return ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command]


@BOTH
@pytest.mark.usefixtures("fast_attaching")  # kprobes take more descriptors
@pytest.mark.parametrize("limit", [64, 80])
@pytest.mark.threat("descriptors")
def test_who_has_no_descriptors_left_gets_emfile(
    tmp_path: Path, fs: Scratch, reader: Path, options: tuple[str, ...], limit: int
) -> None:
    """Where the supervisor may not have more than its client: it lives, and its groups do."""
    groups = [GROUP, mark(fs)] * MOST_GROUPS
    alive = ("say:again", "use:0", mark(fs), trigger(fs), "errors:1")
    command = under_exec(reader, *groups, *alive, options=options)
    without = ["setpriv", "--bounding-set", "-sys_resource"]
    with Running(tmp_path, limited(limit, *without, *command)) as client:
        assert client.end() == 0
        *refused, again, heard = (line for line in client.lines() if not line.startswith("read "))
        assert set(refused) == {f"{mark(fs)}: EMFILE"}
        assert len(refused) < MOST_GROUPS
        assert again == "again"
        assert heard.startswith("fs_error ")
        assert counts(client) == [1]
        assert client.errors() == ""


@BOTH
@pytest.mark.threat("descriptors")
def test_a_supervisor_without_descriptors_says_so(reader: Path, options: tuple[str, ...]) -> None:
    """Where it may not have more than its caller, as without CAP_SYS_RESOURCE."""
    command = under_exec(reader, "say:ready", options=options)
    without = ["setpriv", "--bounding-set", "-sys_resource"]
    done = subprocess.run(
        limited(TOO_FEW, *without, *command),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert (
        line == f"fserr-bpf: too many open files: the limit is {TOO_FEW}; raise it with ulimit -n"
    )
