"""One scenario on the running kernel, from its scratch file systems to its cell."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn

from fserr_bpf.errors import FserrError, LabError
from fserr_bpf_compare.faults import kernellog
from fserr_bpf_compare.harness.expected import missing
from fserr_bpf_compare.harness.fixture import Guest, KernelFixture
from fserr_bpf_compare.scenarios.scenario import Scenario
from fserr_bpf_compare.verdict.cells import Cell


def run(scenario: Scenario, guest: Guest, cell: Cell) -> Cell:
    """Run ``scenario``; returns ``cell`` filled, as far as the scenario came.

    Never raises FserrError, OSError or AssertionError: these are trouble of the cell.
    """
    begin = time.monotonic()
    expected = scenario.expected(guest.sent, guest.version)
    trouble = ""
    fixture: KernelFixture | None = None
    with kernellog.KernelLog() as log:
        try:
            with _time_limit(guest.timeout * 10), ExitStack() as stack:
                fixture = KernelFixture(guest, stack)
                scenario.run(fixture)
                fixture.finish(expected)
        except (FserrError, OSError, AssertionError) as error:
            trouble = " ".join(str(error).split()) or type(error).__name__
        messages = tuple(log.messages())
    if fixture and not trouble and not _evident(scenario.evidence, fixture.devices, messages):
        trouble = f"nothing failed: the kernel logged no message that matches {scenario.evidence}"
    if fixture and fixture.sides:
        sides = fixture.sides
        cell = cell._replace(
            real=tuple(sides.real),
            emulated=tuple(sides.emulated),
            missing=missing(sides.real, sides.emulated, expected),
            statistics=str(sides.monitor.statistics()),
        )
    return cell._replace(
        basis="probes" if guest.attached.kernel.kprobes else "kernel group",
        trigger=tuple(fixture.triggers) if fixture else (),
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
