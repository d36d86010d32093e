"""What a scenario is run with: scratch file systems, marks and reads on both sides.

Up to 6.19 an error is in the kernel's queue when the call that met it returns. Linux
7.x and our patch series deliver from a worker. There the fixture causes one more error,
on a file system of its own that has a group of its own (`DeliveryBarrier`): when that
has arrived, the earlier ones have been delivered. On 7.x one may still be overtaken, so
the last read waits for more while the streams disagree.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

from fserr_bpf.errors import LabError
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.fault import Expected, TriggerProcess
from fserr_bpf_compare.faults.reporter import Pipes
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from fserr_bpf_compare.harness.expected import missing
from fserr_bpf_compare.harness.sides import READ_SIZE, Sides
from fserr_bpf_compare.scenarios.scenario import Version
from fserr_bpf_compare.verdict import levels
from fserr_bpf_compare.verdict.cells import Level

_DELIVERY_TIMEOUT = 30.0  # seconds


class DeliveryBarrier:
    """An ext4 that no scenario watches; ``wait`` returns when an error of it was delivered."""

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
            raise LabError(f"the kernel delivered no event within {_DELIVERY_TIMEOUT:g} s")
        self._group.read()


class Guest(NamedTuple):
    """What all scenarios of one guest share.

    ``timeout`` is for what comes late, in seconds; a scenario may take ten times as long.
    ``sent`` is the stream that the kernel itself sends. ``barrier`` is None where the kernel
    delivers at once. ``outside`` leads to a process outside of this pid namespace.
    """

    attached: AttachedProbes
    stream: Stream
    sent: Stream
    version: Version
    promised: Level
    barrier: DeliveryBarrier | None
    timeout: float
    outside: Pipes | None = None


class KernelFixture:
    """The `fserr_bpf_compare.scenarios.scenario.Fixture` of one scenario on the running kernel."""

    def __init__(self, guest: Guest, stack: ExitStack) -> None:
        self.version = guest.version
        self.sides: Sides | None = None
        self.triggers: list[str] = []
        self.devices: list[str] = []
        self._file_systems = stack
        self._guest = guest

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
        guest = self._guest
        marks = [Mark.filesystem(str(fs.mount_point)) for fs in marked]
        marks += map(Mark.inode, inodes)
        sides = Sides(guest.attached, guest.stream, marks, flags=flags, max_events=max_events)
        self.sides = self._file_systems.enter_context(sides)

    def record(self, process: TriggerProcess) -> TriggerProcess:
        """Record a process that caused errors; returns it."""
        command, stderr = " ".join(process.command), " ".join(process.stderr.split())
        message = f" ({stderr})" if stderr else ""
        self.triggers.append(f"{command} -> {process.returncode}{message}")
        return process

    def outside(self, fs: Scratch) -> TriggerProcess:
        """Cause an ext4 error in a process outside of this pid namespace."""
        assert self._guest.outside is not None, "the scenario has no pid namespace of its own"
        return self._guest.outside.trigger(fs)

    def settle(self) -> None:
        """Wait until both sides have queued what was caused so far."""
        if self._guest.barrier:
            self._guest.barrier.wait()
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
                levels.reached(sides.real, sides.emulated) <= self._guest.promised
                and not missing(sides.real, sides.emulated, expected)
            ),
            self._guest.timeout,
        )

    def _watched(self) -> Sides:
        assert self.sides is not None, "a scenario has to watch"
        return self.sides
