"""Clients whose calls are made in unusual ways: the same natively and under ``fserr-bpf exec``."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.exec_clients import COMPILER, Running, compile_c, numbered
from tests.live.conftest import wait_until
from tests.live.exec_place import require_exact_kernel
from tests.live.test_exec_deaths import descriptors_of
from tests.live.test_exec_process import Taken

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

WAYS = (
    *("plain", "compat", "mixed", "x32", "uring", "filtered", "refused", "listener", "traced"),
    *("vforked", "threads", "setuid", "unprivileged"),
)
OTHER = {
    "": {
        # a task has one listener
        "listener": {"filter: done": "filter: EBUSY"},
    },
    "--exact": {
        "listener": {"filter: done": "filter: EBUSY"},
        # the kernel gives nothing of a file that has no size
        "uring": {"fs_error ": "nothing to read"},
    },
}
"""What differs, by the option of exec: the beginning of the native line, and ours."""

Told = dict[str, list[str]]


@pytest.fixture(scope="module")
def fs(file_systems: None) -> Iterator[Scratch]:
    with scratch("ext4") as fs:
        yield fs


def play(directory: Path, fs: Scratch, program: Path, options: list[str] | None) -> Told:
    """What the program says in each way: all under one exec, or natively for None."""
    setuid = Path(shutil.copy(program, fs.mount_point / "setuid"))
    setuid.chmod(0o4755)
    plain = Path(shutil.copy(program, fs.mount_point / "plain"))
    plain.chmod(0o755)
    # the file system is in a directory of root's
    os.chmod(fs.directory, 0o711)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    special = {
        "setuid": [*nobody, str(setuid), "plain"],
        "unprivileged": [*nobody, str(plain), "calls"],
    }
    where = [str(fs.mount_point), f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"]
    parts = []
    for way in WAYS:
        command = [*special.get(way, [str(program), way]), *where]
        parts.append(f"echo way {way}; {shlex.join(command)}; echo status $?")
    shell = ["sh", "-c", "; ".join(("echo waiting; read go", *parts, "echo done; read go"))]
    with (
        Running(directory, shell)
        if options is None
        else Taken(directory, *shell, options=tuple(options)) as client
    ):
        wait_until(lambda: client.says("waiting"), "the shell")
        supervisor = client.supervisor() if isinstance(client, Taken) else None
        before = descriptors_of(supervisor) if supervisor else 0
        client.go_on()
        wait_until(lambda: client.says("done"), "all ways")
        if supervisor:
            wait_until(lambda: descriptors_of(supervisor) == before, "all groups to be closed")
        client.go_on()
        assert client.end() == 0
        assert client.errors() == ""
        _, *told = "\n".join(client.lines()[:-1]).split("way ")
    return {way: numbered(lines) for way, *lines in (text.splitlines() for text in told)}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(tmp_path_factory.mktemp("unusual"), "unusual", static=True)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory, fs: Scratch, program: Path) -> Told:
    require_exact_kernel()
    return play(tmp_path_factory.mktemp("native"), fs, program, None)


@pytest.fixture(scope="module", params=["", "--exact"], ids=["pipe", "exact"])
def ours(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    fs: Scratch,
    program: Path,
    native: Told,
) -> tuple[Told, Told]:
    """What they say under exec, and what they should."""
    wanted = {}
    for way, lines in native.items():
        other = OTHER[request.param].get(way, {})
        wanted[way] = [
            next((there for here, there in other.items() if line.startswith(here)), line)
            for line in lines
        ]
    options = [request.param] if request.param else []
    return play(tmp_path_factory.mktemp("ours"), fs, program, options), wanted


@pytest.mark.threat("unusual-clients")
@pytest.mark.parametrize("way", WAYS)
def test_unusual_client(native: Told, ours: tuple[Told, Told], way: str) -> None:
    told, wanted = ours
    assert native[way][-1] == "status 0"
    assert told[way] == wanted[way]


def test_natively_they_do_what_they_are_for(native: Told) -> None:
    """Otherwise there would be nothing to be the same."""
    silent = {"mixed", "x32", "refused", "unprivileged"}
    for way, lines in native.items():
        assert any(line.startswith("fs_error ") for line in lines) == (way not in silent), way
    assert "mark: EACCES" in native["refused"]
    assert "mark: EPERM" in native["unprivileged"]
    assert "stopped: often" in native["traced"]
