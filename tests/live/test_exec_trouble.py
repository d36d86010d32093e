"""What goes wrong in the supervisor is the errno of one call; all groups go on."""

from __future__ import annotations

import errno
import os
import resource
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.exec.channel import Channel, Feed
from fserr_bpf.exec.lines import ErrorLines
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.markobject import MarkWorker
from fserr_bpf.exec.markrequest import MarkAnswer, MarkJob
from fserr_bpf.exec.pipe import PipeChannel
from fserr_bpf.exec.report import Report
from fserr_bpf.exec.supervisor import Supervisor
from fserr_bpf.exec.workers import Workers
from fserr_bpf.kernel.capabilities import Capability, capget
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.tasks.child import in_child
from fserr_bpf.tasks.credentials import set_effective
from fserr_bpf.tasks.seccomp import Notification
from fserr_bpf_compare.faults.scratch import scratch
from tests.c_reader import COMPILER
from tests.exec_clients import compile_c
from tests.live.conftest import require_mark, wait_until
from tests.live.taken import Taken, compile_client, taken
from tests.live.test_exec_process import mark, trigger
from tests.live.test_exec_process import taken as under_supervision

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

GROUP = "init 0x203 0"
MARK = "mark 3 0x101 0x8000 -100 /"
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture(scope="module")
def client() -> Iterator[Path]:
    """Where every user can run it."""
    directory = Path(f"/tmp/fserr-trouble-{os.getpid()}")
    directory.mkdir(mode=0o755)
    program = compile_client(directory)
    yield program
    program.unlink()
    directory.rmdir()


def job_of(call: Notification) -> MarkJob:
    """An inode mark, as the call's registers have it."""
    return MarkJob(
        *(call.id, call.tid, 1, 0x20, 0, -100, call.args[4]),
        pathless=False,
        locate=False,
        needed=False,
        kernel=False,
        instead=False,
        names=False,
        own_devs=(),
    )


def serve(client: Taken, attached: AttachedProbes, work: Callable[..., object]) -> None:
    """Supervise it to its end; ``work`` is called for each channel and each mark first."""
    with ExitStack() as stack:
        loop, lines = stack.enter_context(Loop()), stack.enter_context(ErrorLines())

        def make_channel(
            feed: Feed, flags: GroupFlags, gone: Callable[[], None], *, nonblocking: bool
        ) -> Channel:
            work("channel")
            return PipeChannel(feed, loop, gone, nonblocking=nonblocking)

        class Watched(MarkWorker):
            """Work that may fail in the worker's own code."""

            def perform(self, job: MarkJob, descriptors: Sequence[int]) -> MarkAnswer:
                work("mark")
                return super().perform(job, descriptors)

        watched = Watched(client.listener.waits_for, debug=False)
        workers = stack.enter_context(Workers(loop, watched.serve, [client.listener.fileno()]))
        supervisor = stack.enter_context(
            Supervisor(
                client.listener,
                attached,
                Stream.NATIVE,
                loop=loop,
                make_channel=make_channel,
                workers=workers,
                report=Report(lines, enabled=False),
            )
        )
        ended = os.pidfd_open(client.process.pid)
        stack.callback(os.close, ended)

        def reap(_events: int) -> None:
            client.process.wait()  # before 6.11 a task counts until then
            loop.remove(ended)

        loop.add(ended, select.EPOLLIN, reap)
        supervisor.run()


@pytest.mark.threat("mistake")
def test_mistake_costs_one_call(
    client: Path, attached: AttachedProbes, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said once, and the next call succeeds."""
    made: list[str] = []

    def fail_first(what: str) -> None:
        made.append(what)
        if what == "channel" and len(made) < 3:
            raise KeyError("mistake")

    with taken(client, f"{GROUP} {MARK} {MARK} {MARK}") as run:
        serve(run, attached, fail_first)
        lines = run.lines()
    assert lines == ["init 3", f"mark {-errno.EIO}", f"mark {-errno.EIO}", "mark 0"]
    assert capfd.readouterr().err == "fserr-bpf: unexpected KeyError('mistake')\n"


@pytest.mark.threat("worker-dies", "mistake")
def test_worker_that_ends_costs_one_call(client: Path, attached: AttachedProbes) -> None:
    def end(what: str) -> None:
        if what == "mark":
            os._exit(1)

    with taken(client, f"{GROUP} {MARK} {GROUP}") as run:
        serve(run, attached, end)
        assert run.lines() == ["init 3", f"mark {-errno.EINTR}", "init 4"]


@pytest.mark.threat("mistake")
def test_mistake_of_a_worker_is_its_answer(client: Path) -> None:
    """A job without the descriptor that belongs to it."""
    with taken(client, MARK) as run:
        call = run.call()
        answer = MarkWorker(run.listener.waits_for, debug=False).perform(job_of(call), [])
        assert (answer.error, answer.last) == (errno.EIO, True)
        assert answer.trouble.startswith("unexpected IndexError")
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.threat("memory")
def test_memory_that_may_not_be_read(client: Path) -> None:
    """As of a program that has changed its user, without CAP_SYS_PTRACE."""
    with taken(client, MARK, within=AS_NOBODY) as run:
        call = run.call()
        worker = MarkWorker(run.listener.waits_for, debug=False)

        def without_ptrace() -> MarkAnswer:
            set_effective(capget().effective & ~(1 << Capability.SYS_PTRACE))
            return worker.perform(job_of(call), [])

        answer = in_child(without_ptrace)
        run.listener.answer(call, 0)
        run.lines()
    assert answer.error == errno.EIO
    assert answer.trouble == (
        "the memory of a client cannot be read (Operation not permitted); "
        "run as root with CAP_SYS_PTRACE and kernel.yama.ptrace_scope below 3"
    )


@pytest.mark.threat("too-many-files")
@pytest.mark.usefixtures("file_systems", "scratch_space")
def test_supervisor_without_a_free_descriptor(tmp_path: Path) -> None:
    """The call gets EMFILE, the groups that are there go on, and so does the next call."""
    require_mark()
    reader = compile_c(tmp_path, "reader")
    with scratch("ext4") as fs:
        words = (
            *("init:0x203", mark(fs), "say:ready", "wait", "init:0x203", mark(fs), "use:0"),
            *(trigger(fs), "await", "read:4096", "say:limited", "wait", "use:1", mark(fs)),
            *(trigger(fs), "await"),
        )
        with under_supervision(tmp_path, reader, *words, "read:4096") as client:
            supervisor = client.supervisor()
            before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{supervisor}/fd"))
            resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (used, before[1]))
            client.go_on()
            wait_until(lambda: client.says("limited"), "an event with the limit")
            resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
            client.go_on()
            assert client.end() == 0
            lines = [line for line in client.lines() if not line.startswith("fs_error")]
            errors = client.errors()
    assert lines == [
        *("ready", "waiting", f"{mark(fs)}: EMFILE", "read 56", "limited", "waiting", "read 56")
    ]
    assert errors == ""
