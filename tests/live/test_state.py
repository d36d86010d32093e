"""The state of real file systems, each broken for real; what can be done with it is the witness."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.cli.status import EXIT_NOT_OK
from fserr_bpf.errors import LabError, MarkError
from fserr_bpf.kernel.capabilities import Capability
from fserr_bpf.kernel.ext4 import options_tell
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.event import Event
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.state import Condition, FilesystemState
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.state.look import look
from fserr_bpf.state.superblocks import superblock_at, superblocks
from fserr_bpf.state.watch import StateWatch
from fserr_bpf.uapi.errno import EFSCORRUPTED
from fserr_bpf_compare.faults import mapper, removed
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import (
    IN_LAB,
    KernelLog,
    skip,
    wait_until,
    without_states,
    write_trigger,
)
from tests.live.test_run_cli import running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
SHUTDOWN_IOCTL = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN and F2FS_IOC_SHUTDOWN are one
NOLOGFLUSH = 2
DEAD = {Condition.SHUTDOWN, Condition.READ_ONLY_AFTER_ERROR}
# seconds that an answer may take on a busy machine, where an emulated one is busier
PATIENCE = 20.0
KINDS = ("metadata", "the end", "failed writes", "failed reads")


def state(fs: Scratch) -> FilesystemState:
    (found,) = look([superblock_at(str(fs.mount_point))], PATIENCE)
    assert found.device == fs.device_name
    assert str(fs.mount_point) in found.mount_points
    return found


def write_error(fs: Scratch) -> int:
    """Errno of making a file and keeping it: what a state is about."""
    try:
        descriptor = os.open(fs.mount_point / "new", os.O_WRONLY | os.O_CREAT)
        try:
            os.write(descriptor, b"x")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or -1
    return 0


def shut_down(fs: Scratch) -> None:
    root = os.open(fs.mount_point, os.O_RDONLY)
    try:
        fcntl.ioctl(root, SHUTDOWN_IOCTL, struct.pack("=I", NOLOGFLUSH))
    finally:
        os.close(root)


@contextmanager
def made(fstype: str, *options: str) -> Iterator[Scratch]:
    try:
        with scratch(fstype, mount_options=options) as fs:
            yield fs
    except LabError as error:
        if "modprobe" in str(error):  # not every kernel has each type
            skip(str(error), expected=True)
        raise


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs", "f2fs"])
def test_well_and_asked_for(fstype: str) -> None:
    with made(fstype) as fs:
        assert (state(fs).condition, state(fs).ok, state(fs).reason) == (Condition.OK, True, "")
        assert write_error(fs) == 0
        run("mount", "-o", "remount,ro", str(fs.mount_point))
        assert (state(fs).condition, state(fs).ok) == (Condition.READ_ONLY, True)
        assert write_error(fs) == errno.EROFS
        fs.unmount()
        fs.mount("ro")
        assert (state(fs).condition, state(fs).ok) == (Condition.READ_ONLY, True)


def test_ext4_error_is_on_record_until_it_is_repaired() -> None:
    with made("ext4", "errors=continue") as fs:
        before = int(time.time())
        write_trigger(fs.device_name, 3)
        wait_until(lambda: state(fs).errors == 3, "the superblock to have the errors")
        found = state(fs)
        assert found.condition is Condition.ERRORS
        assert write_error(fs) == 0
        assert found.first is not None
        assert found.first.function == "trigger_test_error"
        assert found.first.error == EFSCORRUPTED
        assert before <= found.first.time <= int(time.time())
        fs.unmount()
        fs.mount()
        assert (state(fs).condition, state(fs).errors) == (Condition.ERRORS, 3)
        fs.unmount()
        repair(fs)
        fs.mount()
        assert (state(fs).condition, state(fs).errors) == (Condition.OK, 0)


def repair(fs: Scratch) -> None:
    done = subprocess.run(["e2fsck", "-fy", fs.device], capture_output=True, check=False)
    assert done.returncode in (0, 1), done


def test_ext4_that_makes_itself_read_only_tells() -> None:
    """Linux 6.12 to 6.14 and late 6.1 show nothing of it in the mount table."""
    with made("ext4", "errors=remount-ro") as fs:
        write_trigger(fs.device_name, 1)
        wait_until(lambda: state(fs).condition in DEAD, "the state to tell")
        assert state(fs).errors == 1
        assert write_error(fs) in (errno.EROFS, errno.EIO)
        fs.unmount()
        repair(fs)
        fs.mount()
        assert state(fs).condition is Condition.OK


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "f2fs"])
def test_shut_down_tells_and_is_over_with_the_next_mount(fstype: str) -> None:
    with made(fstype) as fs:
        shut_down(fs)
        assert state(fs).condition is Condition.SHUTDOWN
        assert write_error(fs) == errno.EIO
        fs.unmount()
        fs.mount()
        assert state(fs).condition is Condition.OK


def test_xfs_whose_log_cannot_be_written_is_shut_down() -> None:
    with made("xfs") as fs, KernelLog() as log:
        fs.shrink_device(1 << 20)
        assert write_error(fs) == errno.EIO
        assert state(fs).condition is Condition.SHUTDOWN
        log.wait_for(rf"XFS \({fs.device_name}\): (log I/O error|.*[Ss]hutting down filesystem)")
        # it is in the list of all too
        (listed,) = (s for s in look(superblocks(read_mounts()), PATIENCE) if s.dev == fs.dev)
        assert listed.condition is Condition.SHUTDOWN


def test_btrfs_after_a_fatal_error_has_counted() -> None:
    with made("btrfs") as fs:
        fs.shrink_device(1 << 20)
        (fs.mount_point / "victim").write_bytes(b"x" * (1 << 20))
        assert subprocess.run(["sync", "-f", str(fs.mount_point)], check=False).returncode != 0
        wait_until(lambda: state(fs).condition in DEAD, "the forced read-only")
        found = state(fs)
        assert found.condition is Condition.READ_ONLY_AFTER_ERROR
        assert [device.device for device in found.devices] == [fs.device]
        assert found.errors == found.devices[0].write + found.devices[0].flush > 0
        run("mount", "-o", "remount,ro", str(fs.mount_point))  # hides nothing
        assert state(fs).condition is Condition.READ_ONLY_AFTER_ERROR
        # what remains of it cannot be mounted again, and need not


def status(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [COMMAND, "status", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


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


def test_device_that_was_removed_is_gone() -> None:
    if reason := removed.unavailable():
        skip(reason, expected=True)
    with made("ext4") as fs, removed.on_disk(fs) as disk:
        disk.remove()
        (gone,) = look([superblock_at(str(fs.mount_point))], PATIENCE)
    assert (gone.condition, gone.device, gone.ok) == (Condition.GONE, disk.name, False)


# what run says


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


def conditions(output: Path, fs: Scratch) -> list[tuple[str | None, str]]:
    """Before and after of each state of ``fs`` in the complete lines of the output."""
    lines = output.read_text().split("\n")[:-1]
    states = (each for each in map(json.loads, lines) if each["type"] == "state")
    return [(s["before"], s["condition"]) for s in states if s["device"] == fs.device_name]


def test_run_and_top_take_an_xfs_that_is_dead_already(scratch_space: Path) -> None:
    with made("xfs") as fs:
        shut_down(fs)
        command = (COMMAND, "top", "--once", "--json", "--interval", "0.1", str(fs.mount_point))
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        (shown,) = json.loads(done.stdout)["states"]
        assert (shown["device"], shown["condition"]) == (fs.device_name, "shut down")


def test_options_tell_is_what_the_kernel_shows() -> None:
    with made("ext4") as fs:
        shut_down(fs)
        shown = next(m for m in read_mounts() if m.dev == fs.dev).super_options.split(",")
        assert ("shutdown" in shown) == options_tell()


# how often, and by whom


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


# odd mounts


@contextmanager
def errors_of(fs: Scratch, number: int) -> Iterator[None]:
    """So many, caused by one process while the block runs."""
    path = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    script = f'for i in $(seq {number}); do echo x > "$0"; done'
    with subprocess.Popen(["sh", "-c", script, path]) as process:
        yield
        assert process.wait() == 0


def test_odd_mounts_disturb_nobody_and_are_told_once(scratch_space: Path) -> None:
    """One hidden under another, one without fsid, one that is dead; and mounts that come and go."""
    other = scratch_space / "other"
    other.mkdir()
    with (
        made("ext4", "errors=continue") as hidden,
        scratch("ext4", mkfs_options=("-O", "^metadata_csum")) as nameless,
        made("xfs") as dead,
        made("ext4", "errors=continue") as shown,
    ):
        nameless.unmount()
        run("tune2fs", "-U", "clear", nameless.device)
        nameless.mount()
        shut_down(dead)
        run("mount", "-o", "errors=continue", shown.device, str(hidden.mount_point))
        try:
            with running(scratch_space, "--format", "json") as monitor:
                with errors_of(shown, 1500):
                    for _ in range(40):
                        run("mount", "-t", "tmpfs", "none", str(other))
                        run("umount", str(other))
                _, output = monitor.end(signal.SIGTERM)
                lines = monitor.lines()
        finally:
            run("umount", str(hidden.mount_point))
    events = [e for e in without_states(output) if e["origin"]["device"] == shown.device_name]
    assert sum(event["error_count"] for event in events) == 1500
    place = f"{hidden.mount_point} (ext4 on {hidden.device_name})"
    assert (
        lines.count(told(f"{place}: another mount hides it; mount it at a second place too")) == 1
    )
    place = f"{nameless.mount_point} (ext4 on {nameless.device_name})"
    cause = "the file system has no fsid; give it a UUID, as tune2fs -U random does"
    assert lines.count(told(f"{place}: {cause}")) == 1
    place = f"{dead.mount_point} (xfs on {dead.device_name})"
    assert len([line for line in lines if f"state of {place}: shut down; " in line]) == 1
    assert place in lines[0]
    again = [line for line in lines if "now watching" in line]
    assert not any(str(fs.mount_point) in line for fs in (hidden, shown) for line in again)


def test_one_that_takes_no_mark_does_not_end_the_others(attached: AttachedProbes) -> None:
    with scratch("ext4") as fs:
        marks = [Mark.filesystem("/proc"), Mark.filesystem(str(fs.mount_point))]
        with Monitor(marks, attached=attached) as monitor:
            assert monitor.marks.devices() == {fs.dev}
            (line,) = (line for line in monitor.news() if "/proc" in line)
    assert line.startswith("not watching /proc: the file system ")
    with pytest.raises(MarkError, match=r"^/proc: the file system "):
        MarkTable([Mark.filesystem("/proc")])


@pytest.mark.parametrize("fstype", ["vfat", "nilfs2", "jfs", "ocfs2"])
def test_of_each_type_on_a_disk_something_is_heard(fstype: str, attached: AttachedProbes) -> None:
    with made(fstype) as fs:
        table = MarkTable(None)
        if fstype == "jfs" and "has no fsid" in table.skipped.get(fs.dev, ""):
            skip(f"told, and the documents say so: {table.skipped[fs.dev]}", expected=True)
        assert fs.dev in table.devices()
        marks = [Mark.filesystem(str(fs.mount_point))]
        with Monitor(marks, states=True, attached=attached) as monitor:
            missing = monitor.not_seen(fstype)
            assert monitor.states
            (change,) = monitor.states.changes()
    assert {"the end", "failed reads"} <= set(missing) < {*KINDS}
    assert (change.state.condition, change.not_seen) == (Condition.OK, missing)


def test_one_without_file_handles_is_told() -> None:
    with made("exfat") as fs:
        table = MarkTable(None)
        assert fs.dev not in table.devices()
        why = "exfat has no file handles; check the kernel log for its errors"
        assert table.skipped[fs.dev] == f"{fs.mount_point}: {why}"


def told(why: str) -> str:
    return f"fserr-bpf: not watching {why}"


def test_ext3_of_the_ext4_driver_is_followed_and_has_a_state(attached: AttachedProbes) -> None:
    with scratch("ext4", mkfs_options=("-t", "ext3")) as fs:
        fs.unmount()
        run("mount", "-t", "ext3", "-o", "errors=continue", fs.device, str(fs.mount_point))
        (marked,) = (m for m in MarkTable(None) if m.dev == fs.dev)
        assert (marked.fstype, marked.driver) == ("ext3", "ext4")
        with Monitor([Mark.filesystem(str(fs.mount_point))], attached=attached) as monitor:
            write_trigger(fs.device_name, 1)
            events: list[Event] = []

            def came() -> bool:
                events.extend(monitor.read_events())
                return bool(events)

            wait_until(came, "the error")
        wait_until(lambda: state(fs).errors == 1, "the record")
        assert (state(fs).fstype, state(fs).condition) == ("ext3", Condition.ERRORS)
