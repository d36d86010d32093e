"""What is found out about a client, against what the client itself finds."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.tasks.client import Client
from fserr_bpf.tasks.credentials import read_status
from fserr_bpf.tasks.descriptors import descriptor_identity
from fserr_bpf.tasks.memory import text_at
from fserr_bpf.tasks.pidnamespaces import pid_namespace_of, pid_seen_by
from fserr_bpf.uapi.fcntl import AT_FDCWD
from tests.c_reader import COMPILER
from tests.live.client_place import (
    AS_NOBODY,
    LAST_MARK,
    MOUNT_NAMESPACE,
    NOWHERE,
    PID_AND_PROC,
    PID_NAMESPACE,
    USER_NAMESPACE,
    WITHOUT_OVERRIDE,
    compiled_client,
    inode_of,
    nothing_left,
    place_of,
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


@pytest.fixture
def place(client: Path) -> Iterator[Path]:
    yield from place_of(client)


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    yield from nothing_left()


@pytest.mark.threat("memory")
def test_text_is_what_the_kernel_would_take(client: Path) -> None:
    texts: list[bytes | int] = []
    with taken(client, "init 0x200 0 paths 3") as run:
        run.listener.let_through(run.call())

        for _ in range(11):
            call = run.call()
            try:
                texts.append(text_at(call.tid, call.args[4]))
            except OSError as error:
                texts.append(-(error.errno or 0))
            run.listener.let_through(call)
        native = run.said("path")
    fault, too_long = -errno.EFAULT, -errno.ENAMETOOLONG
    assert texts == [
        *(b"last", b"across", fault, too_long, b"a" * 4095, b""),
        *(fault, fault, fault, fault, fault),
    ]
    assert [text for text in texts if isinstance(text, int)] == [
        result for text, result in zip(texts, native, strict=True) if isinstance(text, int)
    ]
    assert native[5] == -errno.ENOENT


@pytest.mark.threat("identity")
@pytest.mark.parametrize(
    ("within", "privileged", "effective"),
    [
        (NOWHERE, True, True),
        (MOUNT_NAMESPACE, True, True),
        (WITHOUT_OVERRIDE, True, True),
        (AS_NOBODY, False, False),
        (("setpriv", "--bounding-set=-sys_admin"), False, False),
        (USER_NAMESPACE, False, True),
    ],
)
def test_privileged(
    client: Path, within: tuple[str, ...], privileged: bool, effective: bool
) -> None:
    if "--user" in within:
        require_user_namespaces()
    with taken(client, "init 0 0", within=within) as run:
        call = run.call()
        status = Path(f"/proc/{call.tid}/status").read_text()
        mask = int(status.partition("CapEff:")[2].split()[0], 16)
        assert bool(mask >> 21 & 1) == effective
        assert Client(call.tid).privileged() == privileged
        run.listener.let_through(call)
        # 5.13 gave groups without privilege to everybody, but not of these flags
        assert (run.said("init") == [3]) == privileged


@pytest.mark.threat("identity")
def test_process_of_a_thread(client: Path) -> None:
    with taken(client, "threads 2 1") as run:
        calls = [run.call(), run.call()]
        assert {read_status(call.tid).tgids[0] for call in calls} == {run.process.pid}
        assert run.process.pid not in {call.tid for call in calls}
        for call in calls:
            run.listener.answer(call, call.args[0])
        assert run.said("threads") == [2]


@pytest.mark.threat("group-descriptor")
def test_identity(client: Path, place: Path) -> None:
    with taken(client, f"open {place}/open 0 init 0 0", within=MOUNT_NAMESPACE) as run:
        call = run.call()
        status = (place / "open").stat()
        assert descriptor_identity(call.tid, 3) == (status.st_dev, status.st_ino)
        assert descriptor_identity(call.tid, 4) is None
        assert descriptor_identity(call.tid, -1) is None
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.threat("pid-namespaces")
@pytest.mark.parametrize("within", [NOWHERE, PID_NAMESPACE, (*PID_NAMESPACE, *PID_AND_PROC)])
def test_pid_namespaces(client: Path, within: tuple[str, ...]) -> None:
    with taken(client, "init 0 0 pid", within=within) as run:
        call = run.call()
        namespace = Client(call.tid).pid_namespace()
        inside = pid_seen_by(call.tid, namespace)
        assert pid_seen_by(call.tid, pid_namespace_of("self")) == call.tid
        assert (namespace == pid_namespace_of("self")) == (not within)
        if within:
            assert pid_seen_by(os.getpid(), namespace) == 0
        chain = numbers(call.tid)
        assert len(chain) == 1 + within.count("--pid")
        if len(chain) == 3:
            middle = pid_namespace_of(parent(call.tid))
            assert pid_seen_by(call.tid, middle) == chain[1]
        run.listener.answer(call, 0)
        assert run.said("pid") == [inside] == [chain[-1]]
        if within:
            run.process.wait()
            assert pid_seen_by(call.tid, namespace) == 0


def numbers(tid: int) -> list[int]:
    found = re.search(r"^NSpid:(.*)$", Path(f"/proc/{tid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return [int(number) for number in found[1].split()]


def parent(tid: int) -> int:
    """In the namespace between: the process that made the inner one."""
    return int(Path(f"/proc/{tid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.threat("identity")
def test_client_that_is_gone(client: Path) -> None:
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /") as run:
        call = run.call()
        run.process.kill()
        run.process.wait()
        look = Client(call.tid)
        assert descriptor_identity(call.tid, 1) is None
        for ask in (
            lambda: read_status(call.tid),
            look.privileged,
            look.pid_namespace,
            lambda: text_at(call.tid, call.args[4]),
            lambda: look.in_context(AT_FDCWD, b"/", inode_of),
            lambda: look.in_context(1, None, inode_of),
        ):
            with pytest.raises(ProcessLookupError):
                ask()
