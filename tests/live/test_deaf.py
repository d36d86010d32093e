"""Kprobes that are switched off while a monitor listens: told, counted, and over by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.cli.probes import report_of
from fserr_bpf.model.mark import Mark
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import wait_until, write_trigger

pytestmark = [pytest.mark.root, pytest.mark.kprobes, pytest.mark.usefixtures("scratch_space")]

SWITCHES = ("/proc/sys/kernel/ftrace_enabled", "/sys/kernel/debug/kprobes/enabled")


@pytest.fixture(params=SWITCHES)
def switch(request: pytest.FixtureRequest) -> Iterator[Path]:
    """One of the switches; on again at the end."""
    path = Path(request.param)
    yield path
    path.write_text("1")


def test_a_gap_is_told_and_counted(switch: Path, attached: AttachedProbes) -> None:
    with scratch("ext4") as fs:
        marks = [Mark.filesystem(str(fs.mount_point))]
        with Monitor(marks, attached=attached) as monitor:
            switch.write_text("0")
            assert monitor.wait(10) == frozenset()
            monitor.pump()
            (deaf,) = monitor.news()
            assert deaf.startswith("no probe has run since ")
            assert "ftrace_enabled" in deaf or "kprobes/enabled" in deaf
            write_trigger(fs.device_name, 5)
            monitor.pump()
            assert monitor.statistics().seen == 0
            switch.write_text("1")
            monitor.pump()
            (again,) = monitor.news()
            assert again.startswith("probes run again: errors of ")
            write_trigger(fs.device_name, 1)

            def heard() -> bool:
                monitor.pump()
                return monitor.statistics().seen == 1

            wait_until(heard, "the error after the gap")
            (gap,) = monitor.statistics().gaps
            assert gap.end_ns is not None
            assert gap.end_ns > gap.start_ns
        # a monitor that starts deaf says so
        switch.write_text("0")
        with Monitor(marks, attached=attached) as monitor:
            assert any(news.startswith("no probe has run") for news in monitor.news())
        for missing in report_of(attached)["blind"].values():
            assert ["any error"] in missing.values()
        switch.write_text("1")
        for missing in report_of(attached)["blind"].values():
            assert ["any error"] not in missing.values()
