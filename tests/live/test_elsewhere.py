"""File systems that only another mount namespace has: counted, followed, and never kept busy."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.errors import PrivilegeError, UsageError
from fserr_bpf.kernel.mounts import read_mounts
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import wait_until, without_states, write_trigger
from tests.live.hearing import container
from tests.live.test_run_cli import COMMAND, Run, refused, running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


@contextmanager
def in_container(fs: Scratch) -> Iterator[int]:
    """Mount it in a mount namespace of its own, and nowhere else; its process."""
    fs.unmount()
    options = ("-o", ",".join(fs.mount_options))
    with container("mount", *options, fs.device, str(fs.mount_point)) as process:
        assert str(fs.mount_point) not in {mount.mount_point for mount in read_mounts()}
        yield process


def is_mounted(fs: Scratch) -> bool:
    """Whether the superblock is there, whoever has it mounted."""
    return Path(f"/sys/fs/ext4/{fs.device_name}").exists()


def change_mounts(folder: Path) -> None:
    """What makes a monitor look: something is mounted here, too."""
    run("mount", "-t", "tmpfs", "none", str(folder))
    run("umount", str(folder))


def has_line(monitor: Run, folder: Path, line: str) -> None:
    """Wait until it says so. It looks some time after a change."""

    def said() -> bool:
        change_mounts(folder)
        return line in monitor.lines()

    wait_until(said, repr(line))


@pytest.fixture
def other(scratch_space: Path) -> Path:
    folder = scratch_space / "other"
    folder.mkdir()
    return folder


def test_they_are_counted(scratch_space: Path) -> None:
    with (
        scratch("ext4") as fs,
        in_container(fs),
        running(scratch_space) as monitor,
    ):
        words = r"fserr-bpf: \d+ file systems? in other mount namespaces (is|are) not watched; .*"
        (line,) = (line for line in monitor.lines() if re.fullmatch(words, line))
        assert line.endswith("; add --all-namespaces")
        write_trigger(fs.device_name, 1)
        _, output = monitor.end(signal.SIGTERM)
    assert fs.device_name not in {e["origin"]["device"] for e in without_states(output)}


def test_they_are_followed_and_can_be_unmounted(scratch_space: Path, other: Path) -> None:
    # the namespace of the first has a copy of what is mounted here before
    with scratch("ext4") as before, in_container(before) as first, scratch("ext4") as later:
        arguments = ("--all-namespaces", "--format", "json", "--detail")
        with running(scratch_space, *arguments) as monitor:
            place = f"/proc/{first}/root{before.mount_point}"
            (watching,) = (line for line in monitor.lines() if ": watching " in line)
            assert f"{place} (ext4 on {before.device_name})" in watching
            write_trigger(before.device_name, 2)
            with in_container(later) as second:
                there = f"/proc/{second}/root{later.mount_point}"
                has_line(monitor, other, f"fserr-bpf: now watching {there} (ext4)")
                write_trigger(later.device_name, 1)
                # nothing of ours keeps a mount busy, or the namespace that has it
                inside = ("nsenter", "--mount", "--root", f"--target={first}")
                run(*inside, "umount", str(before.mount_point))
                wait_until(lambda: not is_mounted(before), "the superblock to go")
                has_line(monitor, other, f"fserr-bpf: no longer watching {place}: unmounted")
            wait_until(lambda: not is_mounted(later), "the superblock to go with its container")
            has_line(monitor, other, f"fserr-bpf: no longer watching {there}: unmounted")
            code, output = monitor.end(signal.SIGTERM)
        before.mount()
        later.mount()
    assert code == 0
    counts: dict[tuple[str, str], int] = {}
    for event in without_states(output):
        key = (event["origin"]["mount_point"], event["origin"]["device"])
        counts[key] = counts.get(key, 0) + event["error_count"]
    assert counts[place, before.device_name] == 2
    assert counts[there, later.device_name] == 1


def test_paths_are_those_from_here(scratch_space: Path) -> None:
    fault = next(fault for fault in FAULTS if fault.name == "ext4_bad_extent")
    with scratch("ext4") as fs:
        fault.prepare(fs)
        with in_container(fs) as process:
            top = Path(f"/proc/{process}/root{fs.mount_point}")
            victim = top / "victim"
            ino = victim.stat().st_ino
            wanted = f"fserr-bpf: ino {ino} on {fs.device_name}: {victim} (exact)"
            arguments = ("--all-namespaces", "--detail", "--format", "json")
            with running(scratch_space, *arguments) as monitor:
                for _ in range(2):  # the path of the first is not known yet when that is written
                    subprocess.run(["xfs_io", "-r", "-c", "seek -d 0", victim], check=False)
                    wait_until(lambda: wanted in monitor.lines(), repr(wanted))
                _, output = monitor.end(signal.SIGTERM)
        fs.mount()
    paths = [
        event["origin"]["detail"]["path"]
        for event in without_states(output)
        if event["origin"]["device"] == fs.device_name
    ]
    assert paths[-1] == str(victim)


def test_the_process_that_showed_it_may_go(scratch_space: Path, other: Path) -> None:
    """Another one of the namespace takes its place."""
    output = scratch_space / "output"
    with scratch("ext4") as fs, in_container(fs) as first, output.open("wb") as file:
        inside = ("nsenter", "--mount", f"--target={first}", "sleep", "1000")
        arguments = ("--all-namespaces", "--format", "json")
        with (
            subprocess.Popen(inside) as second,
            running(scratch_space, *arguments, stdout=file) as monitor,
        ):
            place = f"/proc/{first}/root{fs.mount_point}"
            assert any(place in line for line in monitor.lines())
            os.kill(first, signal.SIGKILL)

            def is_seen_through_the_second() -> bool:
                change_mounts(other)
                write_trigger(fs.device_name, 1)
                return f"/proc/{second.pid}/root{fs.mount_point}" in output.read_text()

            wait_until(is_seen_through_the_second, "the other process to show it")
            assert not any("no longer watching" in line for line in monitor.lines())
            second.kill()
            wait_until(lambda: not is_mounted(fs), "the superblock to go with the namespace")
            monitor.end(signal.SIGTERM)
        fs.mount()


def test_who_names_paths_wants_no_other_namespaces() -> None:
    code, line = refused(COMMAND, "run", "--all-namespaces", "/")
    assert (code, "without paths and marks" in line) == (UsageError.exit_code, True)


def test_it_needs_the_right_to_look() -> None:
    bounded = ("setpriv", "--bounding-set=-sys_ptrace")
    code, line = refused(*bounded, COMMAND, "run", "--all-namespaces")
    assert code == PrivilegeError.exit_code
    assert "CAP_SYS_PTRACE is missing" in line
