"""Where a scenario is played: scratch file systems, both sides, and a cell at the end.

Up to 6.19 an error is in the kernel's queue when the call that met it returns. Linux
7.x and our patch series deliver from a worker: there the stage causes one more error,
on a file system of its own with a group of its own (the canary), and what was caused
before has been delivered when that arrives; 7.x may still overtake, so the last read waits
for more while the streams disagree.
"""

from __future__ import annotations

import re
import select
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from compare import kernellog, levels
from compare.cells import Cell, Level, Read
from compare.faults import FAULTS
from compare.faults.fault import Caused, Expected
from compare.reporter import Pipes
from compare.scenario import Scenario, Version
from compare.scratch import Scratch, scratch
from compare.sides import READ_SIZE, Sides
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import FserrError, LabError
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.fanotify import FanotifyGroup
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream

_DELIVERY_TIMEOUT = 30.0  # seconds for the canary


class Canary:
    """An ext4 whose errors nobody else hears; ``wait`` returns when one was delivered."""

    def __init__(self, stack: ExitStack) -> None:
        self._fs = stack.enter_context(scratch("ext4"))
        self._group = stack.enter_context(FanotifyGroup())
        self._group.mark(str(self._fs.mount_point))
        self._trigger = next(fault for fault in FAULTS if fault.name == "ext4_trigger")

    def wait(self) -> None:
        """Everything that the kernel had to deliver so far has been, or is just being."""
        self._trigger.cause(self._fs)
        poll = select.poll()
        poll.register(self._group.fileno(), select.POLLIN)
        if not poll.poll(_DELIVERY_TIMEOUT * 1000):
            raise LabError(f"the kernel delivered no error within {_DELIVERY_TIMEOUT:g} s")
        self._group.read()


class House(NamedTuple):
    """What all scenarios of one run share.

    ``timeout`` is for what comes late, in seconds; a play may take ten times as long.
    ``sent`` is the stream that the kernel itself sends. ``outside`` leads to a process
    outside of this pid namespace.
    """

    armed: Armed
    stream: Stream
    sent: Stream
    version: Version
    promised: Level
    canary: Canary | None
    timeout: float
    outside: Pipes | None = None


class PlayedStage:
    """The `compare.scenario.Stage` of one scenario."""

    def __init__(self, house: House, stack: ExitStack) -> None:
        self.version = house.version
        self.sides: Sides | None = None
        self.triggers: list[str] = []
        self.devices: list[str] = []
        self._file_systems = stack
        self._house = house

    def scratch(self, fstype: str, **options: Any) -> Scratch:
        """A new mounted file system, not yet watched."""
        fs = self._file_systems.enter_context(scratch(fstype, **options))
        self.devices.append(fs.device_name)
        return fs

    def enter(self, context: AbstractContextManager[Any]) -> Any:
        """Enter a context that ends before the file systems made so far do."""
        return self._file_systems.enter_context(context)

    def watch(
        self,
        *marked: Scratch,
        inodes: Sequence[str] = (),
        flags: int = 0,
        max_events: int | None = None,
    ) -> None:
        """Open both groups with the same marks."""
        assert self.sides is None, "a scenario watches once"
        house = self._house
        marks = [Mark.filesystem(str(fs.mount_point)) for fs in marked]
        marks += map(Mark.inode, inodes)
        sides = Sides(house.armed, house.stream, marks, flags=flags, max_events=max_events)
        self.sides = self._file_systems.enter_context(sides)

    def caused(self, caused: Caused) -> Caused:
        """Note what caused errors."""
        words = " ".join(caused.command)
        said = " ".join(caused.stderr.split())
        self.triggers.append(f"{words} -> {caused.returncode}" + (f" ({said})" if said else ""))
        return caused

    def outside(self, fs: Scratch) -> Caused:
        """Cause an ext4 error in a process outside of this pid namespace."""
        assert self._house.outside is not None, "the scenario has no pid namespace of its own"
        return self._house.outside.trigger(fs)

    def settle(self) -> None:
        """Wait until both sides have queued what was caused so far."""
        if self._house.canary:
            self._house.canary.wait()
        self._watched().pump()

    def read(self, size: int = READ_SIZE) -> None:
        """Settle, then one read(2) on either side."""
        self.settle()
        self._watched().read(size)

    def finish(self, expected: frozenset[Expected]) -> None:
        """Read both to the end, waiting for what comes late."""
        self.settle()
        sides = self._watched()
        sides.drain()
        sides.drain_until(
            lambda: (
                levels.reached(sides.real, sides.emulated) <= self._house.promised
                and not missing(sides, expected)
            ),
            self._house.timeout,
        )

    def _watched(self) -> Sides:
        assert self.sides is not None, "a scenario has to watch"
        return self.sides


def missing(sides: Sides, expected: frozenset[Expected]) -> tuple[str, ...]:
    """What either side lacks, or sent although nothing may be sent; in words."""
    words = []
    for name, reads in (("real", sides.real), ("emulated", sides.emulated)):
        seen = errors_of(reads)
        words += [f"{name}: no error {e.error} in {e.form} form" for e in sorted_(expected - seen)]
        if not expected:
            words += [f"{name}: error {e.error} in {e.form} form" for e in sorted_(seen)]
    return tuple(words)


def sorted_(errors: Iterable[Expected]) -> list[Expected]:
    """By number and form."""
    return sorted(errors, key=lambda e: (e.error, e.form))


def errors_of(reads: Sequence[Read]) -> frozenset[Expected]:
    """The errors in a transcript as positive numbers."""
    events = Decoder().feed(b"".join(read.data for read in reads))
    return frozenset(
        Expected(abs(event.error), "inode" if event.handle else "sb")
        for event in events
        if isinstance(event, FsErrorEvent)
    )


def play(scenario: Scenario, house: House, cell: Cell) -> Cell:
    """Play ``scenario``; returns ``cell`` filled, as far as it came.

    Never raises FserrError, OSError or AssertionError: these are trouble of the cell.
    """
    begin = time.monotonic()
    expected = scenario.expected(house.sent, house.version)
    trouble = ""
    stage: PlayedStage | None = None
    with kernellog.KernelLog() as log:
        try:
            with _time_limit(house.timeout * 10), ExitStack() as stack:
                stage = PlayedStage(house, stack)
                scenario.play(stage)
                stage.finish(expected)
        except (FserrError, OSError, AssertionError) as error:
            trouble = " ".join(str(error).split()) or type(error).__name__
        messages = tuple(log.messages())
    if stage and not trouble and not _evident(scenario.evidence, stage.devices, messages):
        trouble = f"the cause was none: the kernel logged nothing like {scenario.evidence}"
    if stage and stage.sides:
        sides = stage.sides
        cell = cell._replace(
            real=tuple(sides.real),
            emulated=tuple(sides.emulated),
            missing=missing(sides, expected),
            statistics=str(sides.monitor.statistics()),
        )
    return cell._replace(
        basis="probes" if house.armed.kernel.kprobes else "kernel group",
        trigger=tuple(stage.triggers) if stage else (),
        log=messages,
        seconds=round(time.monotonic() - begin, 3),
        trouble=trouble,
    )


def _evident(evidence: str, devices: Sequence[str], messages: Sequence[str]) -> bool:
    pattern = evidence.replace("{dev}", f"(?:{'|'.join(devices)})")
    return not evidence or any(re.search(pattern, message) for message in messages)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> NoReturn:
        raise LabError(f"the scenario did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
