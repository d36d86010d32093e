"""States and marks of odd mounts: hidden, without file handles, without fsid, of other drivers."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.errors import MarkError
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.event import Event
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.state import Condition
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import (
    skip,
    wait_until,
    without_states,
    write_trigger,
)
from tests.live.states import made, shut_down, state
from tests.live.test_run_cli import running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
KINDS = ("metadata", "the end", "failed writes", "failed reads")


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
