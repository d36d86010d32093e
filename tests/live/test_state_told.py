"""What `status`, `run` and `top` tell of states, and what it costs to look again."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.cli.status import EXIT_NOT_OK
from fserr_bpf.errors import MarkError
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.ext4 import options_tell
from fserr_bpf.model.state import Condition
from fserr_bpf.state.superblocks import superblock_at
from fserr_bpf.state.watch import StateWatch
from fserr_bpf_compare.faults import mapper
from fserr_bpf_compare.faults.scratch import Scratch, run
from tests.live.conftest import (
    IN_LAB,
    skip,
    wait_until,
    write_trigger,
)
from tests.live.states import COMMAND, DEAD, conditions, made, repair, shut_down, state, status
from tests.live.test_run_cli import running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


def test_status_says_it_by_exit_code_json_and_table() -> None:
    with made("ext4", "errors=continue") as good, made("xfs") as dead:
        assert status(str(good.mount_point))[0] == 0
        shut_down(dead)
        code, output = status("--json", str(good.mount_point), str(dead.mount_point / "deep/path"))
        report = json.loads(output)
        assert (code, report["v"], report["ok"]) == (EXIT_NOT_OK, 1, False)
        found = {each["device"]: each for each in report["file_systems"]}
        assert found[good.device_name]["ok"]
        assert found[dead.device_name]["condition"] == "shut down"
        code, output = status()
        assert code == EXIT_NOT_OK
        (line,) = (line for line in output.splitlines() if str(dead.mount_point) in line)
        assert line.startswith("shut down  ")


def test_status_of_no_path_is_refused() -> None:
    with pytest.raises(MarkError, match="give a path that exists"):
        superblock_at("/nonexistent/path")


@pytest.mark.parametrize("changed", [False, True], ids=["at rest", "changed"])
def test_device_that_hangs_makes_nobody_wait_and_has_its_names(changed: bool) -> None:
    if reason := mapper.unavailable():
        skip(reason, expected=True)
    with made("ext4") as fs:
        below = fs.device_name
        with mapper.mapped(fs) as device:
            found = state(fs)
            assert (found.mapper, found.below) == (f"fserr-{below}", (below,))
            run("sync", "--file-system", str(fs.mount_point))
            if changed:
                fs.mount_point.chmod(0o700)  # waits in the journal
            device.stall()
            try:
                code, output = status("--json", str(fs.mount_point))
            finally:
                device.heal()
            (shown,) = json.loads(output)["file_systems"]
            if changed and not options_tell():
                assert (code, shown["condition"]) == (12, "unknown")
                assert "does not answer" in shown["reason"]
            else:  # nothing is asked that goes to a disk of which nothing has changed
                assert (code, shown["condition"]) == (0, "ok")
            wait_until(lambda: state(fs).condition is Condition.OK, "an answer")


@contextmanager
def busy_processors() -> Iterator[None]:
    """Many more processes that want a processor than there are."""
    loops = [
        subprocess.Popen(["sh", "-c", "while :; do :; done"])
        for _ in range(8 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_a_busy_machine_is_no_disk_that_hangs() -> None:
    if IN_LAB:
        skip("sixteen loops leave an emulated machine nothing; the host runs it", expected=True)
    with made("xfs") as xfs, made("btrfs") as btrfs, made("ext4") as ext4, busy_processors():
        paths = [str(fs.mount_point) for fs in (xfs, btrfs, ext4)]
        for _ in range(10):
            code, output = status("--json", *paths)
            conditions = [each["condition"] for each in json.loads(output)["file_systems"]]
            assert (code, conditions) == (0, ["ok", "ok", "ok"])


def test_run_tells_what_was_before_what_changes_and_that_it_is_repaired(
    scratch_space: Path,
) -> None:
    with made("ext4", "errors=remount-ro") as sick, made("xfs") as dying:
        write_trigger(sick.device_name, 1)
        wait_until(lambda: state(sick).condition in DEAD, "the state to tell")
        bad = str(state(sick).condition)
        paths = [str(sick.mount_point), str(dying.mount_point)]
        output = scratch_space / "output"
        with (
            output.open("wb") as file,
            running(scratch_space, "--format", "json", *paths, stdout=file) as monitor,
        ):
            wait_until(lambda: bool(conditions(output, dying)), "the first states")
            wait_until(lambda: bool(conditions(output, sick)), "the first states")
            assert conditions(output, sick) == [(None, bad)]
            assert conditions(output, dying) == [(None, "ok")]
            prefix = f"fserr-bpf: state of {sick.mount_point} (ext4 on {sick.device_name}): {bad}; "
            (told,) = (line for line in monitor.lines() if line.startswith(prefix))
            assert re.search(r"\d errors?, the first ", told)  # the second ends it, on some kernels
            shut_down(dying)
            sick.unmount()
            repair(sick)
            sick.mount()
            wait_until(lambda: conditions(output, sick)[1:] == [(bad, "ok")], "the repair")
            code, _ = monitor.end(signal.SIGINT)
            assert code == 0
            # no probe may have heard of it: then it is the last look that finds it
            assert conditions(output, dying) == [(None, "ok"), ("ok", "shut down")]
            assert f"(ext4 on {sick.device_name}): ok, was {bad}" in "".join(monitor.lines())


def test_run_and_top_take_an_xfs_that_is_dead_already(scratch_space: Path) -> None:
    with made("xfs") as fs:
        shut_down(fs)
        command = (COMMAND, "top", "--once", "--json", "--interval", "0.1", str(fs.mount_point))
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        (shown,) = json.loads(done.stdout)["states"]
        assert (shown["device"], shown["condition"]) == (fs.device_name, "shut down")


class Watching:
    """The states of one file system, with what would wake a monitor."""

    def __init__(self, fs: Scratch) -> None:
        self.watch = StateWatch()
        self.watch.see([superblock_at(str(fs.mount_point))], {fs.dev})
        self.watch.settle()
        self._poll = select.poll()
        self._poll.register(self.watch._asking.fileno(), select.POLLIN)

    def conditions(self) -> list[Condition]:
        """Of each change since the last call."""
        self.watch.pump()
        return [change.state.condition for change in self.watch.changes()]

    def a_minute_passes(self) -> None:
        """Until what is asked then has been answered, whether or not that is told."""
        self.watch._tick_ns = 0
        self.watch.pump()
        for process in self.watch._asking._processes:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def wakes(self) -> bool:
        return bool(self._poll.poll(0))


def test_looking_again_wakes_nobody_unless_something_is_new() -> None:
    with made("xfs") as fs:
        watching = Watching(fs)
        with watching.watch:
            assert watching.conditions() == [Condition.OK]
            assert watching.watch._asking._processes == []
            watching.a_minute_passes()
            assert not watching.wakes()
            assert watching.conditions() == []
            shut_down(fs)
            watching.a_minute_passes()
            assert watching.wakes()
            assert watching.conditions() == [Condition.SHUTDOWN]
            assert watching.watch._asking._processes == [], "nothing stays between two looks"


def test_where_mount_options_tell_nobody_is_asked() -> None:
    if not options_tell():
        skip("this kernel's ext4 has to be asked", expected=True)
    with made("ext4") as fs:
        watching = Watching(fs)
        with watching.watch:
            watching.watch.touch(fs.dev)
            watching.watch.look_again()
            assert watching.conditions() == [Condition.OK]
            assert watching.watch._number == 0


def test_a_disk_that_hangs_is_told_and_over(scratch_space: Path) -> None:
    if options_tell():
        skip("this kernel's ext4 is asked nothing that goes to its disk", expected=True)
    if reason := mapper.unavailable():
        skip(reason, expected=True)
    with made("ext4") as fs, mapper.mapped(fs) as device:
        fs.mount_point.chmod(0o700)  # waits in the journal
        device.stall()
        watching = Watching(fs)
        with watching.watch:
            try:
                assert watching.conditions() == [Condition.UNKNOWN]
            finally:
                device.heal()
            wait_until(lambda: watching.conditions() == [Condition.OK], "the answer")


@pytest.mark.parametrize(
    ("owner", "mode", "kept"),
    [(0, 0o755, 0), (65534, 0o700, 1 << Capability.DAC_READ_SEARCH)],
    ids=["open", "closed"],
)
def test_a_monitor_keeps_the_right_to_ask_what_is_closed_to_it(
    owner: int, mode: int, kept: int, scratch_space: Path
) -> None:
    output = scratch_space / "output"
    with made("xfs") as fs, output.open("wb") as file:
        os.chown(fs.mount_point, owner, owner)
        fs.mount_point.chmod(mode)
        arguments = ("--format", "json", str(fs.mount_point))
        with running(scratch_space, *arguments, stdout=file) as monitor:
            wait_until(lambda: bool(conditions(output, fs)), "the first state")
            assert int(monitor.status("CapPrm"), 16) == kept
            shut_down(fs)
            monitor.end(signal.SIGINT)
        assert conditions(output, fs) == [(None, "ok"), ("ok", "shut down")]
