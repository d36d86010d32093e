"""What the tests on a running kernel share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.kernel.kallsyms import KALLSYMS
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults import FAULTS, kernellog
from fserr_bpf_compare.faults.fault import Fault
from tests.conftest import BOOT
from tests.patience import Deadline

BY_NAME = {fault.name: fault for fault in FAULTS}
IN_LAB = "FSERR_LAB" in os.environ
DEADLINE_IDLE = 10.0  # seconds, of an idle host
DEADLINE_SECONDS = Deadline(DEADLINE_IDLE).seconds
"""For what cannot ask a `Deadline`; attaching takes 20 s in an emulated machine."""
ATTACH_SECONDS = 180.0
"""For a command to be attached; it ends much earlier, well or not."""


TWICE = "failed, then passed"  # a property of a test's report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A live test that fails is run once more, and both are told.

    Here many processes, kernels and emulated machines share two processors. What passes the
    second time stands with its traceback at the end of the run: it has to be found out, but
    does not hide what the other tests say. A machine of the lab does so by itself.
    """
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in BOOT:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What machines of the lab have run twice."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == TWICE:
                terminalreporter.write_line(f"{report.nodeid}: {TWICE}: {value}", yellow=True)


def skip(reason: str, *, expected: bool) -> NoReturn:
    """Skip the test; with FSERR_STRICT=1 an unexpected skip is a failure.

    ``expected`` says that this kernel or machine cannot do better by design.
    """
    if os.environ.get("FSERR_STRICT") == "1" and not expected:
        pytest.fail(f"skipped under FSERR_STRICT: {reason}")
    pytest.skip(reason)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll ``condition`` with growing steps; the test fails after the deadline."""
    deadline = Deadline(DEADLINE_IDLE)
    step = 0.001
    while not condition():
        if deadline.has_expired():
            pytest.fail(f"waited {deadline.seconds:.0f} s in vain for {what}")
        time.sleep(step)
        step = min(step * 2, 0.1)


def child_running(parent: int, module: str) -> int:
    """The one child of ``parent`` that runs a module of ours, once it does.

    The kernel's list of children may lack one while another ends.
    """
    found: list[int] = []

    def runs() -> bool:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        found[:] = [int(pid) for pid in children if module.encode() in command_line(pid)]
        return bool(found)

    wait_until(runs, f"a child that runs {module}")
    (child,) = found
    return child


def command_line(pid: str) -> bytes:
    """The arguments of a process, b"" if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


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


def require_seen(fault: Fault, attached: AttachedProbes) -> None:
    """Skip what Debian's 5.10 hides: its modules have no type information."""
    finders = _FOUND_BY.get(fault.name, set())
    if finders and not finders & {attached.probe for attached in attached.probes}:
        reasons = {attached.failed[probe] for probe in finders & attached.failed.keys()}
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


def functions_of(addresses: Sequence[int]) -> list[str]:
    """The kernel's functions that the addresses are in, in one pass: the table is long."""
    table = sorted(Path(KALLSYMS).read_bytes().splitlines())
    lines = [table[bisect(table, b"%016x~" % address) - 1] for address in addresses]
    return [line.split()[2].decode() for line in lines]


def without_states(output: bytes) -> list[dict[str, Any]]:
    """What lines of JSON are, but states of file systems."""
    return [each for each in map(json.loads, output.splitlines()) if each["type"] != "state"]


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
def fast_attaching() -> None:
    """For tests that compile and attach for themselves: 20 s each in the lab."""
    if IN_LAB:
        skip("attaching is slow in an emulated machine; the host runs it", expected=True)


@pytest.fixture(scope="session")
def file_systems() -> None:
    """Modular kernels can only be probed for what is loaded."""
    known = Path("/proc/filesystems").read_text().split()
    for fstype in ("ext4", "xfs", "btrfs"):
        if fstype not in known:
            subprocess.run(["modprobe", fstype], check=True)
    for fstype in ("f2fs", "vfat", "nilfs2", "jfs", "ocfs2"):  # not every kernel has them
        subprocess.run(["modprobe", "--quiet", fstype], check=False)


@pytest.fixture(scope="session")
def attached(file_systems: None) -> Iterator[AttachedProbes]:
    """The probes of all streams, for one monitor after the other: attaching is slow."""
    with AttachedProbes(list(Stream)) as attached:
        yield attached


@pytest.fixture
def scratch_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for scratch file systems; nothing may be left of them at the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert mount_points_below(tmp_path) == []
    # detached when the last one who has it open closes it, which may be a process of others
    wait_until(lambda: loop_devices_below(tmp_path) == [], "the loop devices to go")
    assert list(tmp_path.glob("fserr-*")) == []
