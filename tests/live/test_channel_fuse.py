"""The FUSE file of an emulated group: what only it has, and how it fails."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.exec.fuse import FuseServer
from fserr_bpf.exec.loop import Loop
from fserr_bpf.kernel.syscalls import statx
from tests.live.channels import Client, Emulated, event, exact_group, run_until
from tests.live.conftest import kernel_version, skip, wait_until
from tests.live.test_channel import EXITED, KILLED, loop, program, server

__all__ = ["loop", "program", "server"]  # fixtures
pytestmark = pytest.mark.root
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
T = TypeVar("T")


@pytest.fixture
def group(server: FuseServer, loop: Loop) -> Iterator[Emulated]:
    with exact_group(server, loop, nonblocking=True) as group:
        yield group


def served(loop: Loop, work: Callable[[], T]) -> T:
    """The result of ``work`` in a thread, as a client, served by the loop."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    run_until(loop, lambda: not thread.is_alive(), "a client in a thread")
    thread.join()
    (result,) = results
    return result


@pytest.mark.parametrize("size", [1 << 16, 255 * 4096, 1 << 20, (1 << 21) + 7])
def test_large_reads_are_full_and_never_wait(group: Emulated, size: int) -> None:
    """Also where the kernel divides them: 64 bytes each fill any request exactly."""
    os.set_blocking(end := group.client_end(), True)
    total = 40_000
    group.queue.max_events = None
    group.pending.extend(range(total))
    read: list[int] = []

    def read_all() -> list[int]:
        decoder = Decoder()
        while len(read) < total:
            data = os.read(end, size)
            assert len(data) % 64 == 0
            left = (total - len(read)) * 64
            # only the end of the queue, of the buffer and of a request stop it
            assert len(data) >= min(left, size - 64 - size % 64, 255 * 4096 - 64)
            read.extend(e.pid for e in decoder.feed(data))
        return read

    assert served(group.loop, read_all) == list(range(total))
    group.given(end)


def test_a_read_and_a_poll_see_all_that_the_kernel_has(group: Emulated) -> None:
    end = group.client_end()
    poller = select.poll()
    poller.register(end, select.POLLIN)
    assert served(group.loop, lambda: poller.poll(0)) == []
    # in the ring, and nobody told us
    group.pending.append(1)
    assert served(group.loop, lambda: poller.poll(0)) == [(end, select.POLLIN)]
    group.pending.append(1)
    (read,) = Decoder().feed(served(group.loop, lambda: os.read(end, 4096)))
    assert read == event(1)._replace(error_count=2)
    group.given(end)


def test_several_readers_take_their_turns(group: Emulated) -> None:
    os.set_blocking(end := group.client_end(), True)
    taken: list[int] = []

    def read() -> None:
        (one,) = Decoder().feed(os.read(end, 64))
        taken.append(one.pid)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for key in range(4):
        group.report(key)
    run_until(group.loop, lambda: not any(t.is_alive() for t in threads), "four readers")
    assert sorted(taken) == [0, 1, 2, 3]
    group.given(end)


def test_the_identity_is_known_without_asking(group: Emulated) -> None:
    assert isinstance(group, Emulated)
    end = group.client_end()
    group.report(1)
    served(group.loop, lambda: os.read(end, 4096))
    # this thread is the server: asking it would wait for ever
    known = statx(f"/proc/self/fd/{end}")
    assert (known.dev, known.ino) == group.channel.identity
    group.given(end)


def test_closing_our_copy_waits_for_nobody(program: Path, server: FuseServer, loop: Loop) -> None:
    """A write holds the inode's lock while it waits for us, and so may a close before 5.16."""
    with exact_group(server, loop) as group:
        with Client(program, group, "write:8", at_once=False) as client:
            # not served, so it stays there
            system_call = Path(f"/proc/{client.pid}/syscall")
            wait_until(
                lambda: system_call.read_text().startswith(f"1 {client.end:#x} "), "the write"
            )
            group.given(client.end)
            assert client.result() == -errno.EINVAL
        run_until(loop, lambda: group.gone == 1, "the last close")


def test_groups_are_apart(server: FuseServer, loop: Loop) -> None:
    groups = [exact_group(server, loop, nonblocking=True) for _ in range(3)]
    ends = [group.client_end() for group in groups]
    assert len({group.channel.identity for group in groups}) == 3
    groups[1].report(1)

    def read(end: int) -> bool:
        try:
            return bool(os.read(end, 4096))
        except BlockingIOError:
            return False

    assert served(loop, lambda: [read(end) for end in ends]) == [False, True, False]
    groups[1].given(ends[1])
    run_until(loop, lambda: groups[1].gone == 1, "one to be gone")
    assert [group.gone for group in groups] == [0, 1, 0]
    for index in (0, 2):
        groups[index].given(ends[index])
    run_until(loop, lambda: [group.gone for group in groups] == [1, 1, 1], "all to be gone")


def test_a_client_reads_while_another_group_is_made(
    program: Path, server: FuseServer, loop: Loop
) -> None:
    with exact_group(server, loop) as busy, Client(program, busy, "read:4096") as client:
        client.wait_blocked()
        client.send(signal.SIGSTOP)
        client.send(signal.SIGCONT)
        # the interrupt of the read may come while the file is opened
        with exact_group(server, loop) as other:
            other.given(other.client_end())
        client.wait_blocked()
        busy.report(1)
        assert client.events() == 1


def test_nobody_opens_a_file_that_is_not_his(server: FuseServer, group: Emulated) -> None:
    end = group.client_end()

    def reopen() -> int:
        with pytest.raises(OSError, match="No such device or address"):
            os.open(f"/proc/self/fd/{end}", os.O_RDONLY)
        return 0

    assert served(group.loop, reopen) == 0
    group.given(end)


@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED])
def test_it_cannot_be_mapped(group: Emulated, flags: int) -> None:
    """As a group; before 6.9 a private mapping can be made, of an empty file."""
    end = group.client_end()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p

    def refusal() -> int:
        mapped = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, flags, end, 0)
        return ctypes.get_errno() if mapped == ctypes.c_void_p(-1).value else 0

    possible = flags == mmap.MAP_PRIVATE and kernel_version() < (6, 9)
    assert served(group.loop, refusal) == (0 if possible else errno.ENODEV)
    group.given(end)
    run_until(group.loop, lambda: group.gone == 1, "the last close")


def test_thread_gives_the_result_or_the_exception(server: FuseServer) -> None:
    assert server.in_thread(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        server.in_thread(lambda: 1 // 0)


def test_a_closed_channel_fails_its_reads(program: Path, server: FuseServer, loop: Loop) -> None:
    with exact_group(server, loop) as group:
        commands = ["read:4096", "read:4096", "poll:60000"]
        with Client(program, group, *commands) as client:
            client.wait_blocked()
            group.channel.close()
            assert client.results(2) == [-errno.EIO] * 2
            assert client.result() & select.POLLERR
            assert client.ended() == 0
        assert group.gone == 0


def test_without_its_server_the_client_is_told(program: Path, loop: Loop) -> None:
    server = FuseServer(loop)
    group = exact_group(server, loop)
    with Client(program, group, "read:4096", "read:4096", "poll:60000") as client:
        client.wait_blocked()
        server.close()
        told = client.results(2)
        assert set(told) <= {-errno.ENOTCONN, -errno.ECONNABORTED}
        assert client.result() & select.POLLERR
    server.close()


def test_an_aborted_connection_ends_all_groups(
    program: Path, server: FuseServer, loop: Loop
) -> None:
    connection = Path(f"/sys/fs/fuse/connections/{os.minor(server.st_dev)}/abort")
    if not connection.exists():
        os.system("mount -t fusectl fusectl /sys/fs/fuse/connections 2>/dev/null")
    if not connection.exists():
        skip("no fusectl file system", expected=True)
    groups = [exact_group(server, loop) for _ in range(2)]
    ends = [group.client_end() for group in groups]
    connection.write_text("1")
    run_until(loop, lambda: [group.gone for group in groups] == [1, 1], "the groups to be told")
    for group, end in zip(groups, ends, strict=True):
        group.given(end)


def test_a_traced_reader_is_interrupted(program: Path, server: FuseServer, loop: Loop) -> None:
    """Nobody else can trace it then: the documented difference."""
    with exact_group(server, loop) as group, Client(program, group, "fork", "read:64") as client:
        client.forked()
        client.wait_blocked()
        tracer = os.fork()
        if tracer == 0:
            hold(client.pid)
        assert client.result() == -errno.EINTR
        assert os.waitpid(tracer, 0) == (tracer, 0)


def hold(pid: int) -> None:
    """A debugger that attaches and leaves."""
    code = 1
    try:
        libc = ctypes.CDLL(None)
        if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == libc.ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0:
            wait_until(lambda: state(pid) == "t", "a held reader")
            code = 0
    finally:
        os._exit(code)


def test_a_signal_storm_loses_nothing(program: Path, server: FuseServer, loop: Loop) -> None:
    events = 50
    reads = ["read:1+0"] * events
    commands = ["fork", "handler:1", *reads, "handled"]
    with exact_group(server, loop) as group, Client(program, group, *commands) as client:
        client.forked()
        assert client.result() == 0
        sent = 0

        def storm() -> None:
            nonlocal sent
            if group.queue.delivered < events:
                client.send(signal.SIGUSR1)
                sent += 1
                if sent % 3 == 0:
                    group.report(sent)
                loop.call_at(0, storm)

        loop.call_at(0, storm)
        assert [client.events() for _ in reads] == [1] * events
        assert client.result() > 0
        assert client.result() == EXITED


READ_IN_THREADS = """
import os, sys, threading
end = int(sys.argv[1])
def read():
    print(len(os.read(end, 64)), flush=True)
for _ in range(4):
    threading.Thread(target=read, daemon=True).start()
print(os.getpid(), flush=True)
if sys.stdin.readline():
    os.set_inheritable(end, True)
    again = "import os, sys; print(len(os.read(int(sys.argv[1]), 64)))"
    os.execv(sys.executable, [sys.executable, "-c", again, str(end)])
"""


def test_a_process_of_many_readers_stops_and_becomes_another_program(
    server: FuseServer, loop: Loop
) -> None:
    """An exec waits for the readers to end, and whoever would trace one waits for the exec."""
    with exact_group(server, loop) as group:
        end = group.client_end()
        # its parent is a shell, as Client says why
        command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", READ_IN_THREADS]
        pipe = subprocess.PIPE
        with subprocess.Popen([*command, str(end)], pass_fds=[end], stdin=pipe, stdout=pipe) as sh:
            group.given(end)
            assert sh.stdin is not None
            assert sh.stdout is not None
            output, told = sh.stdout, bytearray()
            os.set_blocking(output.fileno(), False)

            def lines() -> list[int]:
                told.extend(output.read() or b"")
                return [int(line) for line in told.splitlines()]

            run_until(loop, lambda: len(lines()) == 1, "the client to start")
            (pid,) = lines()
            threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
            readers = [tid for tid in threads if tid != pid]

            def all_read() -> bool:
                return all(in_read_of(tid, end) for tid in readers)

            for _ in range(10):
                run_until(loop, all_read, "four readers")
                os.kill(pid, signal.SIGSTOP)
                run_until(loop, lambda: {state(tid) for tid in threads} == {"T"}, "the stop")
                os.kill(pid, signal.SIGCONT)
            run_until(loop, all_read, "four readers")
            group.settled(1, 2)
            run_until(loop, lambda: lines() == [pid, 64, 64], "two reads")
            sh.stdin.write(b"go on\n")
            sh.stdin.flush()
            run_until(loop, lambda: in_read_of(pid, end), "the new program")
            group.settled(3)
            run_until(loop, lambda: lines() == [pid, 64, 64, 64], "its read")
            run_until(loop, lambda: group.gone == 1, "its end")
            assert sh.wait() == 0


def in_read_of(tid: int, fd: int) -> bool:
    return Path(f"/proc/{tid}/syscall").read_text().startswith(f"0 {fd:#x} ")


def state(tid: int) -> str:
    return Path(f"/proc/{tid}/stat").read_text().rpartition(") ")[2][0]


def test_killed_in_the_moment_of_an_interrupt(
    program: Path, server: FuseServer, loop: Loop
) -> None:
    for _ in range(20):
        with exact_group(server, loop) as group, Client(program, group, "fork", "read:9") as client:
            client.forked()
            client.wait_blocked()
            client.send(signal.SIGSTOP)
            client.send(signal.SIGCONT)
            client.send(signal.SIGKILL)
            told = client.result()
            while told < KILLED:  # it may have stopped for a moment
                told = client.result()
            assert told == KILLED + signal.SIGKILL
            run_until(loop, lambda group=group: group.gone == 1, "the end")  # type: ignore[misc]


def test_nothing_is_left_open(loop: Loop) -> None:
    before = os.listdir("/proc/self/fd")
    with FuseServer(loop) as server:
        for _ in range(3):
            with exact_group(server, loop) as group:
                group.given(group.client_end())
                run_until(loop, lambda group=group: group.gone == 1, "the end")  # type: ignore[misc]
    assert os.listdir("/proc/self/fd") == before
    assert threading.active_count() == 1
