"""``fserr-bpf run`` with marks, ignore marks and cgroups: the command, its rights, refusals."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from fserr_bpf.errors import MarkError, UsageError
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import BY_NAME, wait_until, without_states
from tests.live.hearing import container, deep, fail_writes, ino, two_victims
from tests.live.test_run_cli import COMMAND, Run, refused, running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space", "fast_attaching")]
BAD_EXTENT = BY_NAME["ext4_bad_extent"]


def ended(monitor: Run, device: str) -> list[int]:
    """Inode numbers of the errors on ``device`` that it wrote as JSON, 0 for the superblock."""
    status, output = monitor.end(signal.SIGTERM)
    assert status == 0
    origins = [event["origin"] for event in without_states(output)]
    return [origin["ino"] for origin in origins if origin["device"] == device]


def children(monitor: Run) -> dict[int, str]:
    """CapEff of each child process."""
    found = Path(f"/proc/{monitor.process.pid}/task/{monitor.process.pid}/children").read_text()
    return {
        int(pid): Path(f"/proc/{pid}/status").read_text().partition("CapEff:\t")[2].split()[0]
        for pid in found.split()
    }


def test_marks_and_the_arithmetic(scratch_space: Path) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        low = outside.rename(deep(outside.parent, 30) / "victim")
        arguments = ["--mark", f"subtree:{inside.parent}", "--ignore", f"inode:{fs.mount_point}"]
        with running(scratch_space, "--format", "json", *arguments) as monitor:
            first = monitor.lines()[0]
            # attaching is over: no right is left but that to look for handles, elsewhere
            assert int(monitor.status("CapEff"), 16) == 0
            fail_writes(fs, inside, low)
            numbers = ended(monitor, fs.device_name)
            here = ino(inside)
    place = f"subtree:{inside.parent} (xfs on {fs.device_name})"
    assert first == f"fserr-bpf: watching {place}; stream proposed"
    assert set(numbers) == {here}
    seen, delivered, merged, dropped = monitor.account()
    assert delivered == len(numbers)
    assert f"({dropped} not marked)" in monitor.arithmetic()
    assert dropped == seen - delivered - merged > 0


@pytest.mark.parametrize("detail", [[], ["--detail"]])
@pytest.mark.parametrize("user", [None, "nobody"])
def test_the_process_that_is_asked_has_one_right_or_none(
    user: str | None, detail: list[str], scratch_space: Path
) -> None:
    """Without kprobes ext4's own errors need it; with --user their place is not known."""
    with scratch("ext4", mkfs_options=BAD_EXTENT.mkfs_options) as fs:
        BAD_EXTENT.prepare(fs)
        inside = fs.mount_point / "inside"
        inside.mkdir()
        victim = (fs.mount_point / "victim").rename(inside / "victim")
        arguments = ["--mark", f"subtree:{inside}", "--format", "json", *detail]
        with running(scratch_space, *arguments, *(["--user", user] if user else [])) as monitor:
            right = 0 if user else 1 << 2  # CAP_DAC_READ_SEARCH
            wait_until(
                lambda: [int(held, 16) for held in children(monitor).values()] == [right],
                "the process to have given up its rights",
            )
            subprocess.run(["xfs_io", "-r", "-c", "seek -d 0", victim], check=False)
            numbers = ended(monitor, fs.device_name)
            here = ino(victim)
    nobody_knows = user is not None and not KPROBE_PMU.exists()
    assert numbers == ([] if nobody_knows else [here])
    assert ("1 place not known" in monitor.arithmetic()) == nobody_knows


def test_ignore_marks_with_every_file_system(scratch_space: Path) -> None:
    with two_victims("xfs") as (fs, inside, outside):
        arguments = ["--ignore", f"subtree:{inside.parent}", "--format", "json"]
        with running(scratch_space, *arguments) as monitor:
            fail_writes(fs, inside, outside)
            numbers = ended(monitor, fs.device_name)
            there = ino(outside)
    assert set(numbers) == {there}
    assert " ignored" in monitor.arithmetic()


def test_errors_of_the_superblock_for_all(scratch_space: Path) -> None:
    with scratch("ext4") as fs:
        (fs.mount_point / "folder").mkdir()
        marked = ["--mark", f"subtree:{fs.mount_point}/folder", "--format", "json"]
        with running(scratch_space, "--superblock-errors", "all", *marked) as monitor:
            BY_NAME["ext4_trigger"].cause(fs)
            numbers = ended(monitor, fs.device_name)
    assert numbers == [0]


REFUSED = [
    (["--mark", "tree:/"], "no mark: tree:/; give filesystem|mount|inode|subtree:PATH, for"),
    (["--ignore", "/a"], "no mark: /a; give filesystem|mount|inode|subtree:PATH, for example"),
    (["--cgroup", "/none"], "/none: no such cgroup; give a path as /proc/PID/cgroup has it"),
    (["--container", "none"], "no cgroup of a container none; give its id, or its cgroup with"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refusals_are_one_line(arguments: list[str], message: str) -> None:
    status, line = refused(COMMAND, "run", *arguments)
    assert status == UsageError.exit_code
    assert message in line


def test_marks_that_cannot_be(scratch_space: Path) -> None:
    status, line = refused(COMMAND, "run", "--mark", f"subtree:{scratch_space}/none")
    assert status == MarkError.exit_code
    assert line.endswith("/none: No such file or directory; give a path that exists")
    with scratch("ext4") as fs:
        fs.unmount()
        with container("mount", fs.device, str(fs.mount_point)) as pid:
            path = f"subtree:/proc/{pid}/root{fs.mount_point}"
            with running(scratch_space, "--mark", path) as monitor:
                # the mount tables of other processes
                assert int(monitor.status("CapEff"), 16) == 1 << 19
            status, line = refused(COMMAND, "run", "--user", "nobody", "--mark", path)
        fs.mount()
    assert status == UsageError.exit_code
    assert "marks through /proc/PID/root need rights that --user gives up; leave --user out" in line
