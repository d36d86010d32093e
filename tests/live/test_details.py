"""``--detail`` on real errors: detail records, names, and bytes that nothing changes."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.helper import client
from fserr_bpf.helper.client import Helper
from fserr_bpf.kernel import cgroups
from fserr_bpf.model.event import Detail, FsErrorEvent, PathState
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.names import lookup, volumes
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.symbolize.running import RunningKernel
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
from fserr_bpf_compare.faults.cutting import MKFS_OPTIONS, cut, last_victim, write_victims
from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import (
    BY_NAME,
    child_running,
    functions_of,
    require_seen,
    wait_until,
    without_states,
)
from tests.live.test_run_cli import running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
HOSTILE = "evil\n\x1b[31m\udcff"


@pytest.fixture(scope="module")
def detailed(file_systems: None) -> Iterator[AttachedProbes]:
    with AttachedProbes([Stream.PROPOSED], detail=True) as attached:
        yield attached


def detail(event: FsErrorEvent) -> Detail:
    assert event.origin is not None
    assert event.origin.detail is not None
    return event.origin.detail


def fail_write(fs: Scratch, path: str, *prefix: str) -> None:
    """Make one process fail to write the data of ``path``."""
    with cut(fs, path):
        dd = ("dd", "if=/dev/zero", f"of={path}", "bs=64k", "count=1", "conv=notrunc,fsync")
        assert run_child(*prefix, *dd, path=path).returncode == 1


def hostile_victim(fs: Scratch) -> Path:
    """The last file of the device, with its name and its folder's changed."""
    write_victims(fs)
    victim = Path(last_victim(fs))
    folder = victim.parent.rename(fs.mount_point / HOSTILE)
    return (folder / victim.name).rename(folder / HOSTILE)


def events_of(monitor: Monitor) -> list[FsErrorEvent]:
    events: list[FsErrorEvent] = []

    def some() -> bool:
        events.extend(e for e in monitor.read_events() if isinstance(e, FsErrorEvent))
        return bool(events)

    wait_until(some, "an error")
    return events


def build_id(module: str) -> str:
    """As ``/sys`` has it: behind the header of an ELF note and the name "GNU"."""
    part = f"module/{module}/notes/.note.gnu.build-id" if module else "kernel/notes"
    data = Path("/sys", part).read_bytes()
    at = data.index(b"\x14\0\0\0\x03\0\0\0GNU\0") + 12
    return data[at : at + 20].hex()


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_failed_write_has_kind_name_stack_and_volume(
    fstype: str, detailed: AttachedProbes
) -> None:
    with scratch(fstype, mkfs_options=MKFS_OPTIONS[fstype]) as fs:
        path = hostile_victim(fs)
        uuid = run("blkid", "--probe", "-s", "UUID", "-o", "value", fs.device).strip()
        mark = Mark.filesystem(str(fs.mount_point))
        with Monitor([mark], attached=detailed, detail=True) as monitor:
            fail_write(fs, str(path))
            event = events_of(monitor)[0]
            found = detail(event)
            stack = functions_of(found.stack)
            news: list[str] = []

            def told() -> bool:
                monitor.wait(0.1)
                monitor.pump()
                news.extend(monitor.news())
                return bool(news)

            wait_until(told, "the path")
            ino = path.stat().st_ino
            fail_write(fs, str(path))
            later = detail(events_of(monitor)[0])
    assert event.error == errno.EIO
    assert (found.kind, found.uuid, found.mount_points) == (
        "WRITEBACK",
        uuid,
        (str(fs.mount_point),),
    )
    assert (found.name, found.name_state) == (f"{HOSTILE}/{HOSTILE}", "whole")
    assert found.path_state == PathState.PENDING
    assert 0 < len(stack) <= 8
    assert all(stack)
    assert not any(name.startswith("bpf_") for name in stack)
    assert news == [f"ino {ino} on {fs.device_name}: {path} (exact)"]
    assert (later.path, later.path_state) == (str(path), PathState.EXACT)


def test_a_bad_buffer_is_metadata_with_its_length(detailed: AttachedProbes) -> None:
    fault = BY_NAME["xfs_dirblock"]
    with scratch("xfs") as fs:
        fault.prepare(fs)
        mark = Mark.filesystem(str(fs.mount_point))
        with Monitor([mark], attached=detailed, detail=True) as monitor:
            fault.cause(fs)
            event = events_of(monitor)[0]
            origin = event.origin
    found = detail(event)
    assert (found.kind, found.length, found.path_state) == ("METADATA", 4096, PathState.NONE)
    assert origin is not None
    assert origin.address is not None
    assert origin.address.build_id == build_id(origin.address.module)
    assert origin.address.section == ".text"


def test_nobody_touches_a_bad_inode_for_its_name(detailed: AttachedProbes) -> None:
    fault = BY_NAME["xfs_inode"]
    require_seen(fault, detailed)
    with scratch("xfs") as fs:
        fault.prepare(fs)
        mark = Mark.filesystem(str(fs.mount_point))
        with Monitor([mark], attached=detailed, detail=True) as monitor:
            fault.cause(fs)
            found = [e for e in events_of(monitor) if e.handle]
            assert [detail(e).path_state for e in found] == [PathState.NOT_ASKED] * len(found)
            assert found
            again = list(monitor.read_events())
    assert again == []


def test_a_process_in_a_cgroup_owns_its_errors(detailed: AttachedProbes, tmp_path: Path) -> None:
    point = tmp_path / "cgroup"
    point.mkdir()
    run("mount", "-t", "cgroup2", "none", str(point))
    group = point / f"fserr-{os.getpid()}"
    if cgroups.tracks_writeback():  # only groups that have the controllers own pages
        (point / "cgroup.subtree_control").write_text("+memory +io")
    try:
        group.mkdir()
        with scratch("ext4", mkfs_options=MKFS_OPTIONS["ext4"]) as fs:
            write_victims(fs)
            mark = Mark.filesystem(str(fs.mount_point))
            with Monitor([mark], attached=detailed, detail=True) as monitor:
                enter = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
                fail_write(fs, last_victim(fs), "sh", "-c", enter, str(group))
                found = detail(events_of(monitor)[0])
            assert found.cgroup_id == group.stat().st_ino
            assert found.cgroup_of == ("inode" if cgroups.tracks_writeback() else "task")
    finally:
        wait_until(lambda: (group / "cgroup.procs").read_text() == "", "the cgroup to be empty")
        group.rmdir()
        run("umount", str(point))


def no_step(*_: object, **__: object) -> None:
    raise RuntimeError("broken")


def no_process(*_: object, **__: object) -> None:
    raise OSError("broken")


BROKEN = {
    "volumes": (lookup, "volume_of", "UUID and label of a file system"),
    "owners": (lookup, "tracks_writeback", "owners of what was written"),
    "addresses": (lookup, "RunningKernel", "portable addresses"),
    "address": (RunningKernel, "portable", "portable addresses"),
    "helper": (client, "spawn", "helper process for paths"),
    "question": (Helper, "ask", "helper process for paths"),
    "answers": (Helper, "answers", "helper process for paths"),
    "cgroups": (lookup.Names, "_with_cgroup", "paths of cgroups"),
}


@pytest.mark.parametrize("step", BROKEN)
def test_no_broken_step_changes_the_bytes(
    step: str, detailed: AttachedProbes, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, what = BROKEN[step]
    fault = BY_NAME["ext4_writeback"]
    both = FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION

    with scratch("ext4", mkfs_options=fault.mkfs_options) as fs:
        fault.prepare(fs)
        mark = [Mark.filesystem(str(fs.mount_point))]
        with Monitor(mark, attached=detailed, flags=both) as monitor:
            fault.cause(fs)
            plain = events_of(monitor)
        monkeypatch.setattr(owner, name, no_process if name == "spawn" else no_step)
        with Monitor(mark, attached=detailed, detail=True) as monitor:
            fault.cause(fs)
            broken = events_of(monitor)
            monitor.pump()
            news = [line for line in monitor.news() if not line.startswith("ino ")]
    assert [encode(e._replace(pid=0)) for e in broken] == [encode(e._replace(pid=0)) for e in plain]
    assert news == [f"no {what} (broken); events are delivered without"]
    assert detail(broken[0]).kind == "WRITEBACK"


def test_a_dead_helper_is_reported_and_the_events_go_on(detailed: AttachedProbes) -> None:
    fault = BY_NAME["ext4_writeback"]
    with scratch("ext4", mkfs_options=fault.mkfs_options) as fs:
        fault.prepare(fs)
        mark = Mark.filesystem(str(fs.mount_point))
        with Monitor([mark], attached=detailed, detail=True) as monitor:
            os.kill(child_running(os.getpid(), "fserr_bpf.helper.worker"), signal.SIGKILL)
            news: list[str] = []

            def told() -> bool:
                monitor.wait(0.1)
                monitor.pump()
                news.extend(monitor.news())
                return bool(news)

            wait_until(told, "the end of the helper")
            assert news == [
                "no helper process for paths (the process has ended); events are delivered without"
            ]
            fault.cause(fs)
            assert detail(events_of(monitor)[0]).path_state == PathState.UNKNOWN


def test_clones_with_one_fsid_are_reported() -> None:
    with scratch("ext4") as fs, scratch("ext4") as clone:
        fs.unmount()
        clone.unmount()
        run("dd", f"if={fs.device}", f"of={clone.device}", "bs=1M", "conv=fsync", "status=none")
        fs.mount()
        clone.mount()
        ids = {run("stat", "-f", "-c", "%i", str(each.mount_point)) for each in (fs, clone)}
        assert len(ids) == 1
        found = [volumes.volume_of(each.device, "ext4", each.dev).uuid for each in (fs, clone)]
        assert found[0] == found[1] != ""
        with Monitor([Mark.filesystem(str(each.mount_point)) for each in (fs, clone)]) as monitor:
            (line,) = monitor.news()
            assert monitor.news() == []
    assert " have one fsid, " in line
    for each in (fs, clone):
        assert f"{each.mount_point} ({each.device_name})" in line


def test_hostile_names_drive_no_terminal_and_break_no_json(
    scratch_space: Path, fast_attaching: None
) -> None:
    with scratch("ext4", mkfs_options=MKFS_OPTIONS["ext4"]) as fs:
        path = hostile_victim(fs)
        point = str(fs.mount_point)
        for form in ("json", "text"):
            with running(scratch_space, "--detail", "--format", form, point) as started:
                fail_write(fs, str(path))
                wait_until(lambda s=started: any(" on " in x for x in s.lines()[1:]), "the path")  # type: ignore[misc]
                status, output = started.end(signal.SIGTERM)
                said = started.lines()
            assert status == 0
            escaped = f"{point}/evil\\x0a\\x1b[31m\\xff/evil\\x0a\\x1b[31m\\xff"
            assert [x for x in said if escaped in x and x.endswith("(exact)")]
            assert all(x.isprintable() for x in said)
            lines = output.decode().splitlines()
            if form == "json":
                names = [x["origin"]["detail"]["name"] for x in without_states(output)]
                assert set(names) == {f"{HOSTILE}/{HOSTILE}"}
            else:
                assert all(x.isprintable() for x in lines)
                assert "evil\\x0a\\x1b[31m\\xff/evil\\x0a\\x1b[31m\\xff (whole)" in lines[0]


def test_the_helper_follows_run_to_its_user(scratch_space: Path, fast_attaching: None) -> None:
    with (
        scratch("ext4") as fs,
        running(scratch_space, "--detail", "--user", "nobody", str(fs.mount_point)) as started,
    ):
        helper = child_running(started.process.pid, "fserr_bpf.helper.worker")
        uids = Path(f"/proc/{helper}/status")

        def given_up() -> bool:
            text = uids.read_text()
            return "Uid:\t65534\t65534" in text and "CapEff:\t0000000000000000" in text

        wait_until(given_up, "the helper to become nobody")
        assert started.end(signal.SIGTERM)[0] == 0
    assert not uids.exists()
