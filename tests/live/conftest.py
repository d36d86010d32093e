"""What the tests on a running kernel share."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from compare import kernellog
from compare.faults import FAULTS
from compare.faults.fault import Fault
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.fanotify import kernel_accepts_fs_error
from fserr_bpf.live.loader import KPROBE_PMU
from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.record import Probe

BY_NAME = {fault.name: fault for fault in FAULTS}
IN_LAB = "FSERR_LAB" in os.environ
# arming takes 20 s in an emulated machine
DEADLINE_SECONDS = 60.0 if IN_LAB else 10.0


def skip(reason: str, *, expected: bool) -> NoReturn:
    """Skip the test; with FSERR_STRICT=1 an unexpected skip is a failure.

    ``expected`` says that this kernel or machine cannot do better by design.
    """
    if os.environ.get("FSERR_STRICT") == "1" and not expected:
        pytest.fail(f"skipped under FSERR_STRICT: {reason}")
    pytest.skip(reason)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll ``condition`` with growing steps; the test fails after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    step = 0.001
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {DEADLINE_SECONDS:.0f} s in vain for {what}")
        time.sleep(step)
        step = min(step * 2, 0.1)


def kernel_version() -> tuple[int, int]:
    """Version of the running kernel as (major, minor)."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert found is not None
    return int(found[1]), int(found[2])


def require_mark() -> None:
    """Skip where the kernel refuses the mark, so that there is no real group to compare with."""
    if not kernel_accepts_fs_error():
        skip(
            "this kernel has no FAN_FS_ERROR: the mark is refused",
            expected=kernel_version() < (5, 16),
        )


# Where a fault is found by one kind of probe only; all others are found by several.
_FOUND_BY = {
    "xfs_inode": {Probe.XFS_INODE_VERIFIER, Probe.XFS_INODE_SICK},
    "xfs_shutdown": {Probe.XFS_SHUTDOWN, Probe.FSERROR},
}


def require_seen(fault: Fault, armed: Armed) -> None:
    """Skip what Debian's 5.10 hides: its modules have no type information."""
    finders = _FOUND_BY.get(fault.name, set())
    if finders and not finders & {attached.probe for attached in armed.attached}:
        reasons = {armed.failed[probe] for probe in finders & armed.failed.keys()}
        skip(f"{fault.name}: {'; '.join(sorted(reasons))}", expected=kernel_version() == (5, 10))


def emits(fault: Fault) -> bool:
    """Whether this kernel, if it knows FAN_FS_ERROR, reports the fault itself."""
    since = fault.native_since
    return since is not None and (since <= (5, 16) or since <= kernel_version())


def write_trigger(device_name: str, times: int) -> int:
    """Make one process cause ``times`` errors of a mounted ext4; returns its pid."""
    script = f'for i in $(seq {times}); do echo x > "$0"; done'
    path = f"/sys/fs/ext4/{device_name}/trigger_fs_error"
    with subprocess.Popen(["sh", "-c", script, path]) as child:
        assert child.wait() == 0
    return child.pid


class KernelLog(kernellog.KernelLog):
    """The kernel's messages, waited for."""

    def wait_for(self, pattern: str) -> None:
        """Wait for a message that matches the regular expression."""
        wait_until(
            lambda: any(re.search(pattern, message) for message in self.messages()),
            f"the kernel message {pattern!r}",
        )


def loop_devices_below(directory: Path) -> list[str]:
    """Names of the loop devices whose backing file is, or was, in ``directory``."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = file.read_text()
        except OSError:  # detached by someone else between the listing and the read
            continue
        if backing.startswith(f"{directory}/"):
            found.append(file.parts[3])
    return found


def mount_points_below(directory: Path) -> list[str]:
    """Mount points in ``directory``, as mountinfo spells them."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [line.split(" ")[4] for line in table]
    return [point for point in points if point.startswith(f"{directory}/")]


@pytest.fixture(autouse=True)
def require_root(request: pytest.FixtureRequest) -> None:
    """Tests marked ``root`` are skipped for everybody else."""
    if request.node.get_closest_marker("root") is not None and os.geteuid() != 0:
        skip("needs root", expected=False)


@pytest.fixture(autouse=True)
def require_kprobes(request: pytest.FixtureRequest) -> None:
    """Tests marked ``kprobes`` need them; elsewhere test_in_lab.py runs them."""
    if request.node.get_closest_marker("kprobes") is not None and not KPROBE_PMU.exists():
        skip("this kernel has no kprobes; test_in_lab.py runs it on one that has", expected=True)


@pytest.fixture
def fast_arming() -> None:
    """For tests that compile and attach for themselves: 20 s each in the lab."""
    if IN_LAB:
        skip("arming is slow in an emulated machine; the host runs it", expected=True)


@pytest.fixture(scope="session")
def file_systems() -> None:
    """Modular kernels can only be probed for what is loaded."""
    known = Path("/proc/filesystems").read_text().split()
    for fstype in ("ext4", "xfs", "btrfs"):
        if fstype not in known:
            subprocess.run(["modprobe", fstype], check=True)


@pytest.fixture(scope="session")
def armed(file_systems: None) -> Iterator[Armed]:
    """The probes of all streams, for one monitor after the other: arming is slow."""
    with Armed(list(Stream)) as armed:
        yield armed


@pytest.fixture
def scratch_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for scratch file systems; nothing may be left of them at the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert mount_points_below(tmp_path) == []
    assert loop_devices_below(tmp_path) == []
    assert list(tmp_path.glob("fserr-*")) == []
