"""What a client sees on its descriptor: the kernel's own group first, then each of ours."""

from __future__ import annotations

import errno
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fserr_bpf.errors import KernelError
from fserr_bpf.exec.fuse import FuseServer
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.pipe import PipeChannel
from tests.c_reader import COMPILER
from tests.live.channels import Client, Emulated, Group, Native, exact_group, pipe_group, run_until
from tests.live.conftest import skip

pytestmark = pytest.mark.root

READY = select.EPOLLIN
BLOCKED_IN_EPOLL_WAIT = 232
BLOCKED_IN_POLL = 7
SECONDS = 60_000
# what the parent of a client says
STOPPED, CONTINUED, EXITED, KILLED = 1000, 2000, 3000, 4000


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        skip("no C compiler (cc)", expected=False)
    made = tmp_path_factory.mktemp("client") / "channel_client"
    source = Path(__file__).with_name("channel_client.c")
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run([str(COMPILER), *options, "-o", made, source], check=True)
    return made


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def server(loop: Loop) -> Iterator[FuseServer]:
    try:
        server = FuseServer(loop)
    except KernelError as error:
        skip(str(error), expected=False)
    with server:
        yield server


MakeGroup = Callable[..., Group]


@pytest.fixture(params=["native", "pipe", "exact"])
def make(request: pytest.FixtureRequest, loop: Loop) -> Iterator[MakeGroup]:
    """Make a group; ``nonblocking=True`` with O_NONBLOCK."""
    made: list[Group] = []
    # a file system that every machine has and nobody else writes to
    directory = Path(tempfile.mkdtemp(prefix="fserr-", dir="/dev/shm"))

    def make(*, nonblocking: bool = False) -> Group:
        group: Group
        if request.param == "native":
            group = Native(loop, directory, nonblocking=nonblocking)
        elif request.param == "pipe":
            group = pipe_group(loop, nonblocking=nonblocking)
        else:
            server = request.getfixturevalue("server")
            group = exact_group(server, loop, nonblocking=nonblocking)
        made.append(group)
        return group

    yield make
    for group in made:
        group.close()
    shutil.rmtree(directory)


def on_pipe(group: Group) -> bool:
    """Where a read gives one event and nothing is kept of one that did not fit."""
    return isinstance(group, Emulated) and isinstance(group.channel, PipeChannel)


def test_nonblocking_read(program: Path, make: MakeGroup) -> None:
    group = make(nonblocking=True)
    commands = ["read:4096", "go", "read:4096", "read:4096", "nonblock:0", "read:4096"]
    with Client(program, group, *commands) as client:
        assert client.result() == -errno.EAGAIN
        group.settled(1)
        client.go()
        assert client.events() == 1
        assert client.results(2) == [-errno.EAGAIN, 0]
        client.wait_blocked()
        group.settled(2)
        assert client.events() == 1
        assert client.ended() == 0


def test_blocking_read(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "read:4096", "nonblock:1", "read:4096") as client:
        client.wait_blocked()
        group.report(1)
        assert client.events() == 1
        assert client.results(2) == [0, -errno.EAGAIN]


def test_unread_reports_of_one_key_merge_and_read_ones_do_not(
    program: Path, make: MakeGroup
) -> None:
    group = make(nonblocking=True)
    everything = ["go", "read:1+0", "read:1+0", "read:1+0"]
    with Client(program, group, *everything, *everything[:-1]) as client:
        group.settled(1, 2)
        group.settled(1)
        group.settled(2, 1)
        client.go()
        assert [client.events(), client.events(), client.result()] == [1, 1, -errno.EAGAIN]
        group.settled(1)
        client.go()
        assert [client.events(), client.result()] == [1, -errno.EAGAIN]


def test_as_many_events_as_fit(program: Path, make: MakeGroup) -> None:
    group = make(nonblocking=True)
    sizes = ["read:1+0", "read:3+-1", "read:2+23", "read:65536", "read:65536"]
    with Client(program, group, "go", *sizes) as client:
        group.settled(*range(1, 9))
        client.go()
        if on_pipe(group):
            assert [client.events() for _ in sizes] == [1] * len(sizes)
        else:
            assert [client.events() for _ in sizes[:-1]] == [1, 2, 2, 3]
            assert client.result() == -errno.EAGAIN


def test_buffer_that_is_too_small(program: Path, make: MakeGroup) -> None:
    group = make(nonblocking=True)
    with Client(program, group, "go", "part:1+-1", "part:1", "read:1+0", "read:4096") as client:
        group.settled(1, 2)
        client.go()
        if on_pipe(group):  # the rest of the event is lost
            assert client.results(2) == [group.event_size - 1, 1]
            assert client.results(2) == [-errno.EAGAIN] * 2
        else:
            assert client.results(2) == [-errno.EINVAL] * 2
            assert [client.events(), client.events()] == [1, 1]


def test_blocking_read_into_a_buffer_that_is_too_small(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "part:1+-1", "nonblock:1", "part:4096") as client:
        client.wait_blocked()
        group.settled(1)
        small, _, whole = client.results(3)
        if on_pipe(group):
            assert (small, whole) == (group.event_size - 1, -errno.EAGAIN)
        else:
            assert (small, whole) == (-errno.EINVAL, group.event_size)


def test_poll(program: Path, make: MakeGroup) -> None:
    group = make(nonblocking=True)
    commands = [f"poll:{SECONDS}", "poll:0", "read:4096", "poll:0", f"poll:{SECONDS}"]
    with Client(program, group, "nonblock:1", *commands) as client:
        assert client.result() == 0
        client.wait_blocked(BLOCKED_IN_POLL)
        group.report(1)
        assert client.results(2) == [select.POLLIN, select.POLLIN]
        assert client.events() == 1
        assert client.result() == 0
        client.wait_blocked(BLOCKED_IN_POLL)
        group.report(1)
        assert client.result() == select.POLLIN


def test_epoll_level(program: Path, make: MakeGroup) -> None:
    group = make(nonblocking=True)
    waits = ["wait:0", f"wait:{SECONDS}", "go", "wait:0", "read:1+0", "wait:0", "read:1+0"]
    with Client(program, group, "level", *waits, "wait:0", f"wait:{SECONDS}") as client:
        assert client.results(2) == [1, 0]
        client.wait_blocked(BLOCKED_IN_EPOLL_WAIT)
        group.settled(1)
        assert client.result() == READY
        group.settled(2)
        client.go()
        assert client.result() == READY
        assert client.events() == 1
        assert client.result() == READY
        assert client.events() == 1
        assert client.result() == 0
        client.wait_blocked(BLOCKED_IN_EPOLL_WAIT)
        group.report(3)
        assert client.result() == READY


def test_epoll_edge(program: Path, make: MakeGroup) -> None:
    group = make(nonblocking=True)
    waits = ["wait:0", f"wait:{SECONDS}", "wait:0", "go", "wait:0", "wait:0"]
    rest = ["read:1+0", "read:1+0", "read:1+0", f"wait:{SECONDS}"]
    with Client(program, group, "edge", *waits, *rest) as client:
        assert client.results(2) == [1, 0]
        client.wait_blocked(BLOCKED_IN_EPOLL_WAIT)
        group.settled(1)
        assert client.results(2) == [READY, 0]
        group.settled(2)
        client.go()
        # a new event is a new edge although the first is unread
        assert client.results(2) == [READY, 0]
        assert [client.events(), client.events(), client.result()] == [1, 1, -errno.EAGAIN]
        client.wait_blocked(BLOCKED_IN_EPOLL_WAIT)
        group.report(3)
        assert client.result() == READY


def test_stopped_and_continued_in_a_read(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "fork", "read:4096", "read:4096") as client:
        client.forked()
        for key in (1, 2):
            for _ in range(3):
                client.wait_blocked()
                client.send(signal.SIGSTOP)
                assert client.result() == STOPPED + signal.SIGSTOP
                client.send(signal.SIGCONT)
                assert client.result() == CONTINUED
            client.wait_blocked()
            group.report(key)
            assert client.events() == 1
        assert client.result() == EXITED


def test_stopped_while_an_event_comes(program: Path, make: MakeGroup) -> None:
    group = make(nonblocking=False)
    with Client(program, group, "fork", "read:4096", "go") as client:
        client.forked()
        client.wait_blocked()
        client.send(signal.SIGSTOP)
        assert client.result() == STOPPED + signal.SIGSTOP
        group.settled(1)
        client.send(signal.SIGCONT)
        assert set(client.results(2)) == {CONTINUED, group.event_size}


def test_handler_without_restart_ends_the_read(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "fork", "handler:0", "read:4096", "handled", "read:4096") as client:
        client.forked()
        assert client.result() == 0
        client.wait_blocked()
        client.send(signal.SIGUSR1)
        assert client.results(2) == [-errno.EINTR, 1]
        client.wait_blocked()
        group.report(1)
        assert client.events() == 1


def test_handler_with_restart_does_not(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "fork", "handler:1", "read:4096", "handled") as client:
        client.forked()
        assert client.result() == 0
        for _ in range(5):
            client.wait_blocked()
            client.send(signal.SIGUSR1)
            run_until(group.loop, lambda: not pending(client.pid), "the handler")
        client.wait_blocked()
        group.report(1)
        assert client.events() == 1
        assert client.result() == 5


def pending(pid: int) -> int:
    """The signals that a process has not taken yet, as a mask."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))


def test_ignored_signals_do_not_matter(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "fork", "read:4096") as client:
        client.forked()
        client.wait_blocked()
        for sent in (signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT):
            client.send(sent)
        group.report(1)
        assert client.events() == 1


def require_gone(group: Group) -> None:
    """The supervisor is told once, if the group has one."""
    if isinstance(group, Emulated):
        emulated = group
        run_until(group.loop, lambda: emulated.gone > 0, "the group to be told")
        assert emulated.gone == 1


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_killed_in_a_read(program: Path, make: MakeGroup, sent: signal.Signals) -> None:
    group = make()
    with Client(program, group, "fork", "read:4096") as client:
        client.forked()
        client.wait_blocked()
        client.send(sent)
        assert client.result() == KILLED + sent
        assert client.ended() == 0
        require_gone(group)


def test_killed_while_stopped(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "fork", "read:4096") as client:
        client.forked()
        client.wait_blocked()
        client.send(signal.SIGSTOP)
        assert client.result() == STOPPED + signal.SIGSTOP
        client.send(signal.SIGKILL)
        assert client.result() == KILLED + signal.SIGKILL
        require_gone(group)


def test_the_last_close_of_all_copies_counts(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "dup", "go", "fork", "read:4096", "go", "close", "go") as client:
        assert client.result() == 1
        client.go()
        client.forked()
        # by now the only one left is that of the child of the client
        group.report(1)
        assert client.events() == 1
        if isinstance(group, Emulated):
            assert group.gone == 0
        client.go()
        assert client.result() == 0
        require_gone(group)
        client.go()
        assert client.result() == EXITED


def test_a_new_program_goes_on_reading(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "read:1+0", "exec", "read:1+0", "poll:0") as client:
        group.settled(1, 2)
        assert [client.events(), client.events()] == [1, 1]
        assert client.result() == 0
        assert client.ended() == 0
        require_gone(group)


def test_other_rights_change_nothing(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "uid:65534", "stat", "read:4096", "stat") as client:
        assert client.results(2) == [0, 0]
        client.wait_blocked()
        group.report(1)
        assert client.events() == 1
        assert client.result() == 0


def test_other_calls(program: Path, make: MakeGroup) -> None:
    group = make()
    with Client(program, group, "write:8", "reopen") as client:
        if on_pipe(group):  # a pipe has two ends and can be opened again
            assert client.result() == 8
            assert client.result() > 0
        else:
            assert client.results(2) == [-errno.EINVAL, -errno.ENXIO]
