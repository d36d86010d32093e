"""The walks of docs/architecture.md lead through our modules as control does."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.exec.channel import Channel, Feed
from fserr_bpf.exec.lines import ErrorLines
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.markobject import MarkWorker
from fserr_bpf.exec.markrequest import MarkJob
from fserr_bpf.exec.pipe import PipeChannel
from fserr_bpf.exec.report import Report
from fserr_bpf.exec.supervisor import Supervisor
from fserr_bpf.exec.workers import Done
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.scratch import scratch
from tests.c_reader import COMPILER
from tests.live.conftest import BY_NAME, DEADLINE_SECONDS, wait_until
from tests.live.taken import Taken, compile_client, taken
from tests.walk import Walk, walked

pytestmark = pytest.mark.root

ARCHITECTURE = Path(__file__).parents[2] / "docs/architecture.md"
INIT = "init 0x203 0"  # FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID; its descriptor is 3
MARK = "mark 3 0x101 0x8000 -100"  # FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, AT_FDCWD


def documented(heading: str, *, kprobes: bool) -> list[str]:
    """The modules of the numbered table below ``heading``.

    A number in parentheses is a step of kernels without kprobes only.
    """
    section = ARCHITECTURE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
    numbers = [number.strip() for number, *_ in rows[1:]]
    assert [int(number.strip("()")) for number in numbers] == list(range(1, len(rows)))
    return [
        where.strip(" `").removesuffix(".py").replace("/", ".")
        for number, (_, where, *_) in zip(numbers, rows[1:], strict=True)
        if not (kprobes and number.startswith("("))
    ]


class Here(NamedTuple):
    """Does what a worker does in a process of its own."""

    worker: MarkWorker

    def submit(
        self, job: MarkJob, descriptors: Sequence[int], waits: Callable[[], bool], done: Done
    ) -> None:
        """At once."""
        assert waits()
        done(self.worker.perform(job, descriptors))


@contextmanager
def supervised(client: Taken, attached: AttachedProbes) -> Iterator[Callable[..., Walk]]:
    """Answers the client's next call each time, and says how; at the end all that are left.

    It goes on until what it is given is true.
    """
    with ExitStack() as stack:
        loop = stack.enter_context(Loop())

        def make_channel(
            feed: Feed, flags: GroupFlags, gone: Callable[[], None], *, nonblocking: bool
        ) -> Channel:
            return PipeChannel(feed, loop, gone, nonblocking=nonblocking)

        supervisor = stack.enter_context(
            Supervisor(
                client.listener,
                attached,
                Stream.NATIVE,
                loop=loop,
                make_channel=make_channel,
                workers=Here(MarkWorker(client.listener.waits_for, debug=True)),
                report=Report(ErrorLines(), enabled=False),
            )
        )

        def turn_until(done: Callable[[], bool]) -> bool:
            loop.call_at(0, loop.stop)
            loop.run()
            return done()

        def answer(done: Callable[[], bool] = lambda: True) -> Walk:
            if not select.select([client.listener], [], [], DEADLINE_SECONDS)[0]:
                pytest.fail("no call came")
            loop.call_at(0, loop.stop)
            with walked() as walk:
                loop.run()
            wait_until(lambda: done() or turn_until(done), "the answer")
            return walk

        yield answer
        client.process.wait(DEADLINE_SECONDS)
        supervisor.run()


def test_walk_of_an_error(attached: AttachedProbes) -> None:
    fault = BY_NAME["xfs_writeback"]
    with scratch("xfs", mkfs_options=fault.mkfs_options) as fs:
        fault.prepare(fs)
        with Monitor([Mark.filesystem(str(fs.mount_point))], attached=attached) as monitor:
            walk = Walk()
            while not walk.stays or mounts_have_changed(walk):
                fault.cause(fs)
                monitor.wait(DEADLINE_SECONDS)
                with walked() as walk:
                    events = list(monitor.read_events())
                    lines = [FORMATS["text"].encode(event) for event in events]
    assert len(lines) == 1
    heading = "The walk of one error through our modules"
    assert walk.modules() == documented(heading, kprobes=attached.kernel.kprobes)


def mounts_have_changed(walk: Walk) -> bool:
    """Others mount too, and then the table is read again."""
    return any(stay.function == "MountWatch.changed" for stay in walk.stays)


def waits_for_input(pid: int) -> bool:
    """Whether it is in read(2) of its standard input."""
    return Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 ")


@pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)")
def test_walk_of_a_mark_call(attached: AttachedProbes, tmp_path: Path) -> None:
    program = compile_client(tmp_path)
    with (
        scratch("ext4") as fs,
        taken(program, f"{INIT} {MARK} {fs.mount_point} wait {MARK} {fs.mount_point}") as client,
        supervised(client, attached) as answer,
    ):
        answer()
        answer(lambda: waits_for_input(client.process.pid))
        client.go_on()
        walk = answer()
        assert client.lines() == ["init 3", "mark 0", "wait 1", "mark 0"]
    wanted = documented("The walk of one mark call", kprobes=attached.kernel.kprobes)
    assert walk.modules() == wanted
