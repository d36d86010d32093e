"""The filter and its listener on the running kernel: what arrives, what the caller gets."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.errors import KernelError
from fserr_bpf.tasks.seccomp import Listener, Notification, install_filter
from tests.c_reader import COMPILER
from tests.live.conftest import kernel_version, wait_until
from tests.live.taken import BOTH_CALLS, compile_client, descriptors, taken

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

INIT, MARK = 300, 301
ALL_ONES = 2**64 - 1
STORM_MICROSECONDS, STORM_CALLS = 1_000, 5_000
# Below 5.14 a few stay, see Listener; without reusing numbers it would be most of a thousand.
STORM_LEFT = STORM_CALLS // 200 if kernel_version() < (5, 14) else 0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_client(tmp_path_factory.mktemp("client"))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    both = os.pipe()
    yield both
    for fd in both:
        os.close(fd)


def test_both_calls_arrive_with_all_their_arguments(client: Path) -> None:
    words = f"init 0x123456789abcdef0 7 mark -1 0x11 {ALL_ONES} -100 NULL"
    with taken(client, words) as run:
        init = run.call()
        assert (init.tid, init.syscall) == (run.process.pid, INIT)
        assert init.args == (0x123456789ABCDEF0, 7, 33, 44, 55, 66)
        assert run.listener.answer(init, 5)
        mark = run.call()
        assert (mark.tid, mark.syscall) == (run.process.pid, MARK)
        assert mark.args[:5] == (ALL_ONES, 0x11, ALL_ONES, 2**64 - 100, 0)
        assert run.listener.answer(mark, -errno.EXDEV)
        assert run.lines() == ["init 5", f"mark {-errno.EXDEV}"]


@pytest.mark.parametrize("result", [0, 1, 2**31 - 1, -1, -errno.ENOSPC, -4095])
def test_the_answer_is_the_result(client: Path, result: int) -> None:
    with taken(client, "init 0 0") as run:
        assert run.listener.answer(run.call(), result)
        assert run.said("init") == [result]


def test_let_through_is_the_kernels_own_result(client: Path) -> None:
    words = "init 0 0 init 0xffffffff 0 mark 3 1 0x20 -100 /proc/self/nothing mark 3 1 0x20 -100 /"
    with taken(client, words) as run:
        run.serve(run.listener.let_through)
        assert run.said("init") + run.said("mark") == [3, -errno.EINVAL, -errno.ENOENT, 0]


def test_other_abis_and_calls_go_past(client: Path) -> None:
    words = "x32 i386 getppid 1000"
    with taken(client, words) as run:
        calls: list[Notification] = []
        run.serve(calls.append)
        assert calls == []
        assert run.said("x32") == [-errno.ENOSYS] * 2


def test_calls_without_a_listener_fail(client: Path) -> None:
    with taken(client, "wait init 0 0") as run:
        run.listener.close()
        try:
            assert run.process.stdin is not None
            run.process.stdin.write("x")
            assert run.said("init") == [-errno.ENOSYS]
        finally:
            # the fixture closes it once more
            os.dup2(os.open("/dev/null", os.O_RDONLY), run.listener.fileno())


@pytest.mark.parametrize("cloexec", [False, True])
@pytest.mark.parametrize("sends", [True, False])
def test_give_injects_the_file(
    client: Path, pipe: tuple[int, int], cloexec: bool, sends: bool
) -> None:
    with taken(client, "init 0 0 cloexec 3 inode 3") as run:
        one_way(run.listener, sends)
        assert run.listener.give(run.call(), pipe[0], cloexec=cloexec)
        inode = os.fstat(pipe[0]).st_ino
        assert run.lines() == ["init 3", f"cloexec {int(cloexec)}", f"inode {inode}"]


def one_way(listener: Listener, sends: bool) -> None:
    """The way of 5.14, or the older one; the newer kernels know both."""
    if not sends:
        listener._sends = False
    elif not listener._sends:
        assert kernel_version() < (5, 14)


@pytest.mark.parametrize("sends", [True, False])
def test_no_room_for_a_descriptor(client: Path, pipe: tuple[int, int], sends: bool) -> None:
    with taken(client, "limit 3 init 0 0 limit 3 init 0 0") as run:
        one_way(run.listener, sends)
        for _ in range(2):
            assert not run.listener.give(run.call(), pipe[0], cloexec=True)
        assert run.said("init") == [-errno.EMFILE] * 2


def test_give_of_a_bad_descriptor_is_our_own_mistake(client: Path) -> None:
    with taken(client, "init 0 0") as run:
        call = run.call()
        with pytest.raises(OSError, match="Bad file descriptor"):
            run.listener.give(call, 999, cloexec=True)
        assert run.listener.waits(call)
        assert run.listener.answer(call, 9)
        assert run.said("init") == [9]


def test_killed_before_it_was_received(client: Path) -> None:
    with taken(client, "init 0 0") as run:
        wait_until(lambda: asks(run.listener), "the call")
        run.process.kill()
        run.process.wait()
        assert run.listener.receive() is None
        assert run.listener.receive() is None


def asks(listener: Listener) -> bool:
    return any(events & 1 for _, events in listener._poll.poll(0))


def test_killed_between_poll_and_ioctl(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that believes poll's old news must not wait in the kernel."""
    with taken(client, "init 0 0") as run:
        wait_until(lambda: asks(run.listener), "the call")
        run.process.kill()
        run.process.wait()

        class Stale:
            def poll(self, _timeout: int) -> list[tuple[int, int]]:
                return [(run.listener.fileno(), 1)]

        monkeypatch.setattr(run.listener, "_poll", Stale())
        signal.setitimer(signal.ITIMER_REAL, 60)  # its default action ends the tests
        try:
            assert run.listener.receive() is None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.parametrize("sends", [True, False])
def test_killed_after_it_was_received(client: Path, pipe: tuple[int, int], sends: bool) -> None:
    before = descriptors()
    with taken(client, "init 0 0") as run:
        one_way(run.listener, sends)
        call = run.call()
        assert run.listener.waits(call)
        run.process.kill()
        run.process.wait()
        assert not run.listener.waits(call)
        assert not run.listener.answer(call, 0)
        assert not run.listener.let_through(call)
        assert not run.listener.give(call, pipe[0], cloexec=True)
    assert descriptors() == before


def test_end_of_all_filtered_tasks(client: Path) -> None:
    with taken(client, "init 0 0", within=("sh", "-c", '"$@" & exec "$@"', "sh")) as run:
        calls: list[Notification] = []

        def answer(call: Notification) -> None:
            calls.append(call)
            assert run.listener.answer(call, 7)

        run.serve(answer)
        assert len({call.tid for call in calls}) == 2


@pytest.mark.parametrize("sends", [True, False])
def test_signal_storm_leaks_no_descriptor(client: Path, sends: bool) -> None:
    with taken(client, f"storm {STORM_CALLS} {STORM_MICROSECONDS}") as run:
        one_way(run.listener, sends)

        def give(call: Notification) -> None:
            # a new file each time, as the supervisor gives one
            reader, writer = os.pipe()
            os.close(writer)
            run.listener.give(call, reader, cloexec=True)
            os.close(reader)

        run.serve(give)
        failed, left, interrupted = (int(line.split()[1]) for line in run.lines())
        assert (failed, interrupted) == (0, 1)
        assert left <= STORM_LEFT


def test_signals_of_the_supervisor(client: Path, pipe: tuple[int, int]) -> None:
    """Signals in the middle of an injection must not become a result of 0."""
    fired = 0

    def fire(*_: object) -> None:
        nonlocal fired
        fired += 1

    old = signal.signal(signal.SIGALRM, fire)
    words = "init 0 0 " * 200
    try:
        with taken(client, words) as run:
            signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
            run.serve(lambda call: run.listener.give(call, pipe[0], cloexec=True))
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert run.said("init") == list(range(3, 203))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert fired


@pytest.mark.parametrize("words", ["threads 8 200", "forks 8 200"])
def test_many_callers_get_their_own_answers(client: Path, words: str) -> None:
    with taken(client, words) as run:
        tids = set()

        def answer(call: Notification) -> None:
            tids.add(call.tid)
            assert run.listener.answer(call, call.args[0])

        run.serve(answer)
        kind, count, times = words.split()
        good = int(count) * (int(times) if kind == "threads" else 1)
        assert run.said(kind) == [good]
        assert len(tids) == 8


def test_a_second_listener_is_refused() -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            install_filter(BOTH_CALLS)
            install_filter(BOTH_CALLS)
        except KernelError as error:
            cause = error.__cause__
            code = 0 if isinstance(cause, OSError) and cause.errno == errno.EBUSY else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_new_privs_only_where_it_is_needed() -> None:
    """With CAP_SYS_ADMIN setuid programs of the client stay what they are."""
    for uid, expected in ((0, b"0"), (65534, b"1")):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setresuid(uid, uid, uid)
                install_filter(BOTH_CALLS)
                status = Path("/proc/self/status").read_text()
                os.write(writer, status.partition("NoNewPrivs:\t")[2][:1].encode())
            finally:
                os._exit(0)
        os.close(writer)
        said = os.read(reader, 100)
        os.close(reader)
        os.waitpid(child, 0)
        assert said == expected


def test_waits_until_it_is_answered(client: Path) -> None:
    with taken(client, "init 0 0") as run:
        call = run.call()
        assert all(run.listener.waits(call) for _ in range(10))
        assert run.listener.receive() is None, "a received call is not to be received again"
        assert run.listener.answer(call, 0)
        assert not run.listener.waits(call)
        assert not run.listener.answer(call, 0)
        assert run.said("init") == [0]
