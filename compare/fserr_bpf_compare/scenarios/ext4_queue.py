"""How errors of ext4 merge, and what a reader that is late finds."""

from __future__ import annotations

from collections.abc import Callable

from fserr_bpf_compare.faults import ext4
from fserr_bpf_compare.faults.fault import EFSCORRUPTED, Expected, run_child
from fserr_bpf_compare.faults.reporter import Reporter
from fserr_bpf_compare.scenarios.scenario import Fixture, Need, Scenario, always

_TRIGGER = next(fault for fault in ext4.FAULTS if fault.name == "ext4_trigger")
_BURST = 1000
_BURST_SCRIPT = 'i=0; while [ $i -lt "$1" ]; do echo x > "$0"; i=$((i + 1)); done'


def _two_processes(fixture: Fixture) -> None:
    """Each merges into its own event, also into one that is not the last of the queue."""
    fs = fixture.scratch("ext4")
    fixture.watch(fs)
    with Reporter() as one, Reporter() as other:
        for reporter, times in ((one, 1), (other, 1), (one, 3), (other, 2), (one, 1)):
            fixture.record(reporter.trigger(fs, times))


def _burst(fixture: Fixture) -> None:
    fs = fixture.scratch("ext4")
    fixture.watch(fs)
    path = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    fixture.record(run_child("sh", "-c", _BURST_SCRIPT, path, str(_BURST), path=path))


def _read_between(fixture: Fixture) -> None:
    """What was read is not merged into: 2, then 3."""
    fs = fixture.scratch("ext4")
    fixture.watch(fs)
    with Reporter() as reporter:
        fixture.record(reporter.trigger(fs, 2))
        fixture.read()
        fixture.record(reporter.trigger(fs, 3))
        fixture.read()


def _overflow(fixture: Fixture) -> None:
    """Reading makes room, also for the next overflow."""
    fs = fixture.scratch("ext4")
    fixture.watch(fs, max_events=3)
    for _ in range(2):
        for _ in range(5):
            fixture.record(_TRIGGER.cause(fs))
        fixture.read()


def _full_queue(fixture: Fixture) -> None:
    """fsnotify_insert_event() asks for room before it tries to merge."""
    fs = fixture.scratch("ext4")
    fixture.watch(fs, max_events=1)
    with Reporter() as reporter:
        fixture.record(reporter.trigger(fs, 3))


def _scenario(name: str, summary: str, run: Callable[[Fixture], None], *needs: Need) -> Scenario:
    return Scenario(
        name=f"ext4_{name}",
        area="ext4",
        summary=summary,
        run=run,
        expected=always(Expected(EFSCORRUPTED, "sb")),
        evidence=_TRIGGER.log,
        needs=frozenset(needs),
    )


SCENARIOS: tuple[Scenario, ...] = (
    _scenario("two_processes", "two processes take turns: an event for each", _two_processes),
    _scenario("burst", f"{_BURST} errors of one process", _burst),
    _scenario("read_between", "errors of one process, before and after a read", _read_between),
    _scenario("overflow", "more processes than the queue has room for, twice", _overflow),
    # The kernel's own group would have merged before our queue was full.
    _scenario("full_queue", "a full queue merges nothing", _full_queue, Need.PROBES),
)
