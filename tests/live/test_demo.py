"""The main job as a user starts it: it succeeds, and leaves nothing however it ends."""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf_compare.machines import vm
from fserr_bpf_compare.machines.kernels import find
from tests.live.conftest import IN_LAB, loop_devices_below, mount_points_below, skip
from tests.live.machine import require_machine

pytestmark = pytest.mark.root

DEMO = (sys.executable, "-m", "fserr_bpf_compare.demo")
LINE_TIMEOUT = 180.0  # seconds
PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
FAULTS = """\
ext4_trigger         EFSCORRUPTED superblock    seen        reported
ext4_bad_inode       EFSCORRUPTED inode         seen        reported
ext4_htree_checksum  EFSBADCRC inode            seen        reported
ext4_writeback       EIO inode                  seen        silent
xfs_agf              EFSCORRUPTED superblock    seen        -
xfs_inode            EFSCORRUPTED inode         seen        -
xfs_dirblock         EFSBADCRC superblock       seen        -
xfs_writeback        EIO inode                  seen        -
"""
# metadata 24, FID 20 and the handle's 8 for an inode, ERROR 12; fs/notify/fanotify
BYTES = 56 + 64 + 64
IN_GUEST = """
import json, os, pathlib, signal
from tests.live.test_demo import adopt_orphans, interrupt, left_behind
adopt_orphans(True)
folder = pathlib.Path("/tmp/demo")
folder.mkdir()
os.environ["CACHE_DIRECTORY"] = "/tmp/empty"  # so that something is compiled
line, process = "the stream native", "fserr_bpf.probes.compiler"
status = interrupt(signal.SIGINT, line, folder, "--here", process=process)
print(json.dumps([status, left_behind(folder)]))
"""


@pytest.fixture(scope="module", autouse=True)
def place() -> None:
    """Where the demonstration can run: here with kprobes, else in the lab."""
    if IN_LAB:
        skip("boots a machine of its own; the host runs it", expected=True)
    if KPROBE_PMU.exists():
        return
    require_machine("6.12")


@pytest.fixture(scope="module", autouse=True)
def orphans() -> Iterator[None]:
    """Processes that a demonstration leaves behind become children of the test."""
    adopt_orphans(True)
    yield
    adopt_orphans(False)


def adopt_orphans(adopt: bool) -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) == 0


def environment(folder: Path) -> dict[str, str]:
    """Puts everything temporary into ``folder``."""
    return {**os.environ, "TMPDIR": str(folder)}


def children() -> list[str]:
    """Command lines of this process's children; the dead ones are buried first."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return []
    numbers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [Path(f"/proc/{number}/cmdline").read_text() for number in numbers]


def left_behind(folder: Path) -> list[str]:
    """Loop devices, mounts, files and processes of a demonstration in ``folder``."""
    left = children() + loop_devices_below(folder) + mount_points_below(folder)
    return left + [str(path) for path in folder.iterdir()]


def descendants(pid: int) -> str:
    """Command lines of the children of ``pid``, their children and so on."""
    found = ""
    try:
        for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += Path(f"/proc/{number}/cmdline").read_text() + descendants(int(number))
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        pass
    return found


def interrupt(
    number: signal.Signals, line: str, folder: Path, *options: str, process: str = ""
) -> int:
    """Send a signal when ``line`` was said and ``process`` runs; returns the exit status."""
    with subprocess.Popen(
        [*DEMO, *options],
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as demo:
        assert demo.stderr is not None
        said = b""
        deadline = time.monotonic() + LINE_TIMEOUT
        while line.encode() not in said or process not in descendants(demo.pid):
            ready, _, _ = select.select([demo.stderr], [], [], 0.05)
            piece = os.read(demo.stderr.fileno(), 4096) if ready else b""
            said += piece
            if (ready and not piece) or time.monotonic() > deadline:
                demo.terminate()
                pytest.fail(f"not {line!r} and {process!r}: {said.decode()}")
        demo.send_signal(number)
        demo.stderr.read()
        return demo.wait()


def test_every_fault_is_seen_and_the_streams_are_identical(tmp_path: Path) -> None:
    ended = subprocess.run(
        DEMO, env=environment(tmp_path), capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert FAULTS in ended.stdout
    assert "8 of 8 faults seen\n" in ended.stdout
    assert f"{BYTES} bytes of ours, {BYTES} of the kernel's: identical\n" in ended.stdout
    assert "^^" not in ended.stdout
    assert "\x1b" not in ended.stdout
    # the stream was printed as well, each fault's events below its name
    told = re.split(r"^\d of 8  (\w+): .*\n", ended.stdout, flags=re.MULTILINE)
    assert len(told) == 17
    for name, events in zip(told[1::2], told[2::2], strict=True):
        assert re.search(r"^  \d\d:\d\d:\d\d\.\d{6} loop\d+ +/\S+ E\w+ \d+ ", events, re.M), name
    assert max(map(len, ended.stdout.splitlines())) <= 110
    assert left_behind(tmp_path) == []


# QEMU is about to be started, the machine is at work
@pytest.mark.parametrize(
    ("number", "line"), [(signal.SIGTERM, "lab: "), (signal.SIGINT, "making and damaging")]
)
def test_interrupted_lab_leaves_nothing(number: signal.Signals, line: str, tmp_path: Path) -> None:
    if KPROBE_PMU.exists():
        skip("no machine is booted on a kernel with kprobes", expected=True)
    assert interrupt(number, line, tmp_path) == 130
    assert left_behind(tmp_path) == []


def test_ctrl_c_leaves_no_mount_device_or_process() -> None:
    """In the middle: two mounts, and a command whose compiler runs for this and all later ones."""
    command = [sys.executable, "-c", IN_GUEST]
    if KPROBE_PMU.exists():
        said = subprocess.run(command, capture_output=True, check=True).stdout
    else:
        stdout = io.BytesIO()
        assert vm.run(find("6.12"), command, timeout=300, stdout=stdout) == 0
        said = stdout.getvalue()
    assert json.loads(said) == [130, []]


def test_without_kprobes_it_refuses_to_compare_the_kernel_with_itself(tmp_path: Path) -> None:
    if KPROBE_PMU.exists():
        skip("this kernel has kprobes", expected=True)
    ended = subprocess.run(
        [*DEMO, "--here"], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 4
    assert ended.stdout == ""
    assert re.fullmatch(
        r"demo: this kernel has no kprobes: .*; leave out --here, .*\n", ended.stderr
    )


def test_without_network_and_cache_one_line_says_so(tmp_path: Path) -> None:
    if KPROBE_PMU.exists():
        skip("nothing is fetched on a kernel with kprobes", expected=True)
    cache = tmp_path / "cache"
    folder = tmp_path / "temporary"
    folder.mkdir()
    ended = subprocess.run(
        ["unshare", "--net", *DEMO],
        env={**environment(folder), "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == LabError.exit_code
    *progress, last = ended.stderr.splitlines()
    assert any("fetching kernel 6.12" in line for line in progress)
    assert re.search(r"apt-get failed .*; check the network and the mirror", last)
    assert left_behind(folder) == []
