"""A supervisor or guardian of ``fserr-bpf exec`` is killed: every reader is told, nothing leaks."""

from __future__ import annotations

import array
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fserr_bpf.exec.workers import NAME
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.exec_clients import COMPILER, compile_c
from tests.live.conftest import command_line, wait_until, write_trigger
from tests.live.exec_scenarios import GROUP, NONBLOCK
from tests.live.test_exec_process import BOTH, Taken, counts, mark, parent_of, state_of, taken

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

EVENT_SIZE = 56  # of ext4
CPU_MS = 250  # of a second's waiting; a client that spins uses all of it


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C."""
    return compile_c(tmp_path_factory.mktemp("reader"), "reader")


@pytest.fixture(scope="module")
def fs(file_systems: None) -> Iterator[Scratch]:
    with scratch("ext4") as fs:
        yield fs


# readers that wait in each way, one of whom has an event that it has not read


def readers(reader: Path, fs: Scratch) -> list[str]:
    """A shell that starts them; each says what its next reads were."""
    kinds = {
        "blocked": f"{GROUP} {mark(fs)} say:ready read:4096 read:4096",
        "polling": f"{NONBLOCK} {mark(fs)} say:ready await read:4096 await read:4096",
        "epoll": f"{NONBLOCK} epoll {mark(fs)} say:ready await read:4096 await read:4096",
        "edge": f"{NONBLOCK} edge {mark(fs)} say:ready await read:4096",
    }
    script = " & ".join(
        f"{reader} {words} | sed -u 's/^/{kind} /'" for kind, words in kinds.items()
    )
    return ["sh", "-c", f"{script} & wait"]


def said(client: Taken, kind: str) -> list[str]:
    """What its reads were: an event, an errno or "read 0"."""
    lines = [line.removeprefix(f"{kind} ") for line in client.lines() if line.startswith(kind)]
    events = ("overflow", "fs_error", "read: ", "read 0")
    told = [line for line in lines if line.startswith(events)]
    return [re.sub(r" .*", "", line) if "=" in line else line for line in told]


KINDS = ("blocked", "polling", "epoll", "edge")


def ours(client: Taken) -> set[int]:
    """The supervisor and its guardians, without workers and what the client has started."""
    return {
        pid
        for pid in client.helpers()
        if b"fserr-bpf" in command_line(str(pid)) and name_of(pid) != NAME
    }


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def supervisor_of(client: Taken) -> int:
    """A child of one guardian, which has made the other."""
    parents = {pid: parent_of(pid) for pid in ours(client)}
    (supervisor,) = {pid for pid in parents.values() if parents.get(pid) in parents}
    return supervisor


def guardians_of(client: Taken, supervisor: int) -> list[int]:
    """The others, the elder first, once there are two."""
    wait_until(lambda: len(ours(client) - {supervisor}) == 2, "two guardians")
    return sorted(ours(client) - {supervisor}, key=started)


def started(pid: int) -> int:
    """In ticks, as /proc/PID/stat has it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def kill(*pids: int) -> None:
    """At once: none of them can do anything about another."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(lives(pid) for pid in pids), "the end of the killed")


def lives(pid: int) -> bool:
    try:
        return state_of(pid) not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the latter of an open file whose process ends
        return False


def kill_guardian(client: Taken, guardian: int) -> None:
    kill(guardian)
    wait_until(lambda: f"guardian {guardian} died" in client.errors(), "word of its end")


def dead_supervisor(client: Taken, supervisor: int) -> None:
    kill(supervisor)


def dead_guardians_first(client: Taken, supervisor: int) -> None:
    """The supervisor has others by then."""
    for _ in range(2):
        for guardian in guardians_of(client, supervisor):
            kill_guardian(client, guardian)
    guardians_of(client, supervisor)
    kill(supervisor)


def dead_with_the_elder(client: Taken, supervisor: int) -> None:
    """At once."""
    kill(guardians_of(client, supervisor)[0], supervisor)


def dead_with_the_younger(client: Taken, supervisor: int) -> None:
    """At once."""
    kill(supervisor, guardians_of(client, supervisor)[1])


def dead_after_a_replaced_one(client: Taken, supervisor: int) -> None:
    """In this order, without waiting: the supervisor may be making another guardian."""
    os.kill(guardians_of(client, supervisor)[0], signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)


DEATHS: tuple[Callable[[Taken, int], None], ...] = (
    dead_supervisor,
    dead_guardians_first,
    dead_with_the_elder,
    dead_with_the_younger,
    dead_after_a_replaced_one,
)


@BOTH
@pytest.mark.parametrize("deaths", DEATHS)
@pytest.mark.threat("deaths")
def test_every_reader_is_told(
    tmp_path: Path,
    fs: Scratch,
    reader: Path,
    options: tuple[str, ...],
    deaths: Callable[[Taken, int], None],
) -> None:
    """By an event or by a failing read, once, and there is a line."""
    with Taken(tmp_path, *readers(reader, fs), options=options) as client:
        wait_until(
            lambda: all(client.says(f"{kind} ready") for kind in KINDS), "the readers to be ready"
        )
        supervisor = supervisor_of(client)
        deaths(client, supervisor)
        wait_until(lambda: all(said(client, kind) for kind in KINDS), "the readers")
        wait_until(lambda: not ours(client), "the guardians to end")
        for kind in KINDS:
            if options:  # the first of a read that was waiting, or of a later one
                assert set(said(client, kind)) <= {"read: ECONNABORTED", "read: ENOTCONN"}
            else:
                assert said(client, kind) == ["overflow"]
        assert client.errors().count(f"supervisor {supervisor} died") == 1
        for pid in client.helpers():  # those that read once more
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not client.helpers(), "the helpers to end")


@BOTH
@pytest.mark.threat("deaths")
def test_groups_live_on_under_another_guardian(
    tmp_path: Path, fs: Scratch, reader: Path, options: tuple[str, ...]
) -> None:
    """One that was killed, and one that takes no pipes: no call fails, nothing leaks."""
    made = " ".join([GROUP, mark(fs), "close"] * 400)
    reads = "errors:1 say:heard read:4096 say:woken"
    words = f"{GROUP} {mark(fs)} wait {made} use:0 say:made {reads}"
    with taken(tmp_path, reader, *words.split(), options=options, says="waiting") as client:
        supervisor = supervisor_of(client)
        before = descriptors_of(supervisor)
        for guardian in guardians_of(client, supervisor):
            kill_guardian(client, guardian)
        _, stopped = guardians_of(client, supervisor)
        os.kill(stopped, signal.SIGSTOP)
        client.go_on()
        wait_until(lambda: client.says("made"), "the client to make its groups")
        if not options:  # exact channels need no guardian
            line = f"guardian {stopped} does not respond"
            wait_until(lambda: line in client.errors(), "word of it")
        write_trigger(fs.device_name, 1)
        wait_until(lambda: client.says("heard"), "the error")
        wait_until(lambda: descriptors_of(supervisor) == before, "all that is closed to be closed")
        assert counts(client) == [1]
        kill(supervisor)
        if options:
            os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: client.says("woken"), "the client to be told")
        assert client.end() == 0
        assert not [line for line in client.lines() if line.startswith("init")]
        wait_until(lambda: not client.helpers(), "the helpers to end")


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.threat("deaths")
def test_who_has_not_read_is_told_when_there_is_room(
    tmp_path: Path, fs: Scratch, reader: Path
) -> None:
    """A full pipe takes no more: the guardian waits, and none of the client's events is lost."""
    trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    words = f"{NONBLOCK} {mark(fs)} storm:80:{trigger} wait events:65 read:4096"
    with taken(tmp_path, reader, *words.split(), says="waiting") as client:
        wait_until(lambda: unread_of(client) == 64, "a full pipe")
        supervisor = supervisor_of(client)
        kill(supervisor)
        wait_until(lambda: f"supervisor {supervisor} died" in client.errors(), "word of its end")
        client.go_on()
        assert client.end() == 0
        lines = [
            line for line in client.lines() if line.startswith(("fs_error", "overflow", "read:"))
        ]
        assert sum(line.startswith("fs_error") for line in lines) == 64
        assert lines[64:] == ["overflow pid=0 fd=-1 pidfd=none", "read: EAGAIN"]


def unread_of(client: Taken) -> int:
    """Events in the pipe of its only group."""
    (pipe,) = {
        path
        for path in Path(f"/proc/{client.pid}/fd").iterdir()
        if os.readlink(path).startswith("pipe:") and int(path.name) > 2
    }
    unread = array.array("i", [0])
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, unread)
    finally:
        os.close(descriptor)
    return unread[0] // EVENT_SIZE


@BOTH
def test_who_polls_does_not_spin(
    tmp_path: Path, fs: Scratch, reader: Path, options: tuple[str, ...]
) -> None:
    """One that reads what there is as long as reads do not fail uses no time."""
    words = (NONBLOCK, mark(fs), "say:ready", "wait", "busy:1")
    with taken(tmp_path, reader, *words, options=options, says="waiting") as client:
        os.kill(client.supervisor(), signal.SIGKILL)
        wait_until(lambda: "fserr-bpf: " in client.errors(), "a word of the guardian")
        client.go_on()
        assert client.end() == 0
        (used,) = (line for line in client.lines() if line.startswith("cpu "))
        assert int(used.removeprefix("cpu ")) < CPU_MS, client.lines()[:20]


def test_calls_after_a_killed_supervisor_fail(tmp_path: Path, fs: Scratch, reader: Path) -> None:
    words = (GROUP, mark(fs), "say:ready", "wait", GROUP, mark(fs), "say:made")
    with taken(tmp_path, reader, *words, says="waiting") as client:
        kill(client.supervisor())
        client.go_on()
        assert client.end() == 0
        assert client.lines()[2:] == [f"{mark(fs)}: ENOSYS", "made"]


PARENT_ENDS = """
import os, time
from fserr_bpf.kernel.libc import libc
from fserr_bpf.tasks import credentials

reader, writer = os.pipe()
parent = os.getpid()
if os.fork():
    os.read(reader, 1)
    os._exit(0)
credentials.end_with_parent(parent)

def change(sets):
    libc.prctl(1, 0, 0, 0, 0)  # what commit_creds() does
    os.write(writer, b"x")
    while os.getppid() == parent:
        time.sleep(0.001)

credentials.capset = change
credentials.set_effective(0)
print("it lives", flush=True)
"""


def test_parent_that_ends_in_a_change_of_rights_takes_its_child_along() -> None:
    """A worker that stays holds the listener, and all clients' calls with it."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT_ENDS], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
