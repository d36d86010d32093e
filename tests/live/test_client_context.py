"""Taking on a client's place and rights: in which process, out of whose reach, and back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.errors import PrivilegeError
from fserr_bpf.tasks.client import Client
from fserr_bpf.tasks.credentials import read_status, set_effective
from fserr_bpf.uapi.fcntl import AT_FDCWD
from tests.c_reader import COMPILER
from tests.live.client_place import (
    AS_NOBODY,
    CAP_SYS_CHROOT,
    LAST_MARK,
    MOUNT_NAMESPACE,
    NOBODY,
    NOWHERE,
    USER_NAMESPACE,
    compiled_client,
    inode_of,
    nothing_left,
    ourselves,
    require_user_namespaces,
)
from tests.live.taken import taken

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Path]:
    yield from compiled_client()


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    yield from nothing_left()


@pytest.mark.threat("paths-by-rights")
@pytest.mark.parametrize("within", [NOWHERE, AS_NOBODY, MOUNT_NAMESPACE, USER_NAMESPACE])
def test_only_a_user_namespace_needs_another_process(client: Path, within: tuple[str, ...]) -> None:
    if "--user" in within:
        require_user_namespaces()
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=within) as run:
        call = run.call()

        def work(_dirfd: int, _path: bytes | None) -> tuple[int, bool]:
            return os.getpid(), run.listener.waits(call)

        pid, waits = Client(call.tid).in_context(AT_FDCWD, b"/", work)
        assert (pid == os.getpid()) == (within != USER_NAMESPACE)
        assert waits
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.threat("worker-out-of-reach")
def test_stays_out_of_the_clients_reach(client: Path) -> None:
    """Processes of the client's user must not be able to stop the supervisor."""

    def work(_dirfd: int, _path: bytes | None) -> int:
        if kept := os.fork():
            return kept
        signal.pause()
        os._exit(0)

    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=AS_NOBODY) as run:
        call = run.call()
        twin = Client(call.tid).in_context(AT_FDCWD, b"/", work)
        try:
            kill = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "kill", "-STOP", str(twin)]
            done = subprocess.run(kill, capture_output=True, text=True, check=False)
            assert "not permitted" in done.stderr.lower()
        finally:
            os.kill(twin, signal.SIGKILL)
            os.waitpid(twin, 0)
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.threat("worker-out-of-reach")
@pytest.mark.parametrize("sent", [signal.SIGSTOP, signal.SIGKILL])
def test_child_in_reach_of_the_client(client: Path, sent: signal.Signals) -> None:
    """The owner of a user namespace may stop what is in it, but nobody waits for that."""
    require_user_namespaces()
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=USER_NAMESPACE) as run:
        call = run.call()
        with pytest.raises(InterruptedError):
            Client(call.tid).in_context(AT_FDCWD, b"/", lambda *_: os.kill(os.getpid(), sent))
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.threat("mistake")
@pytest.mark.parametrize("within", [NOWHERE, AS_NOBODY, MOUNT_NAMESPACE, USER_NAMESPACE])
def test_what_goes_wrong_in_there_comes_out(client: Path, within: tuple[str, ...]) -> None:
    if "--user" in within:
        require_user_namespaces()

    def fail(_dirfd: int, _path: bytes | None) -> None:
        raise KeyError("mistake")

    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=within) as run:
        call = run.call()
        with pytest.raises(KeyError, match="mistake"):
            Client(call.tid).in_context(AT_FDCWD, b"/", fail)
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.threat("root")
def test_supervisor_without_the_right(client: Path) -> None:
    """One line for the user, and the supervisor stays where it is."""
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=MOUNT_NAMESPACE) as run:
        call = run.call()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                before = ourselves()[1:3]
                set_effective(read_status("self").credentials.effective & ~CAP_SYS_CHROOT)
                Client(call.tid).in_context(AT_FDCWD, b"/", inode_of)
            except PrivilegeError:
                code = 0 if ourselves()[1:3] == before else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        run.listener.answer(call, 0)
        run.lines()
