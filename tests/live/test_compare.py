"""``fserr-bpf compare`` as its user types it: cells, exit status, files, and nothing left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf_compare.faults import mapper
from fserr_bpf_compare.scenarios import SCENARIOS
from fserr_bpf_compare.scenarios.scenario import Need
from tests.live.conftest import IN_LAB, skip, wait_until
from tests.live.machine import require_machine

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
SAME, DIFFERENT, BROKEN, NOT_RUN = 0, 1, 2, 3
# Needs device-mapper, kprobes or f2fs, which small kernels have not.
NOT_HERE = {s.name for s in SCENARIOS if s.needs & {Need.DEVICE_MAPPER, Need.PROBES, Need.F2FS}}
AREAS = {"ext4", "xfs", "generic", "fanotify"}
# What the stock kernel of the lab cannot run: EXT4_DEBUG is off there, and no proposal in it.
NOT_ON_STOCK = {s.name for s in SCENARIOS if "simulate" in s.name or s.area == "proposed"}


def compare(space: Path, *arguments: str, user: str = "") -> subprocess.CompletedProcess[str]:
    as_user = ["setpriv", f"--reuid={user}", "--clear-groups"] if user else []
    return subprocess.run(
        [*as_user, COMMAND, "compare", *arguments],
        env={**os.environ, "TMPDIR": str(space)},
        capture_output=True,
        text=True,
        check=False,
    )


def outcomes(report: Path) -> dict[str, dict[str, Any]]:
    """The judged cells of one kernel by scenario, from report.json."""
    cells = json.loads((report / "report.json").read_text())["cells"]
    assert len({judged["cell"]["kernel"] for judged in cells}) == 1
    return {judged["cell"]["scenario"]: judged for judged in cells}


def test_here(scratch_space: Path, tmp_path: Path) -> None:
    if IN_LAB:
        skip("the host compares this kernel from outside", expected=True)
    done = compare(scratch_space, "--report", str(tmp_path / "r"), "--capture", str(tmp_path / "c"))
    assert done.returncode == SAME, done.stdout + done.stderr
    judged = outcomes(tmp_path / "r")
    assert list(judged) == [scenario.name for scenario in SCENARIOS]
    counts = Counter(one["outcome"] for one in judged.values())
    assert counts.keys() <= {"same", "not run"}
    assert counts["same"] >= len(SCENARIOS) - len(NOT_ON_STOCK) - len(NOT_HERE)
    played = {s.area for s in SCENARIOS if judged[s.name]["outcome"] == "same"}
    assert played == AREAS
    assert all(one["cell"]["not_run"] for one in judged.values() if one["outcome"] == "not run")
    # the same numbers everywhere
    assert f"{counts['same']} same, 0 different, 0 broken, {counts['not run']} not run" in (
        done.stdout
    )
    suite = ElementTree.parse(tmp_path / "r/junit.xml").getroot()
    assert len(list(suite.iter("testcase"))) == len(SCENARIOS)
    assert len(list(suite.iter("skipped"))) == counts["not run"]
    kept = json.loads((tmp_path / "c/index.json").read_text())
    assert len(kept["captures"]) == counts["same"]


def test_stock_kernel(scratch_space: Path, tmp_path: Path) -> None:
    if KPROBE_PMU.exists():
        skip("this kernel has kprobes: test_here compares with probes", expected=True)
    require_machine("6.12")
    done = compare(scratch_space, "--kernel", "6.12", "--report", str(tmp_path / "r"))
    assert done.returncode == SAME, done.stdout + done.stderr
    judged = outcomes(tmp_path / "r")
    assert {one["cell"]["basis"] for one in judged.values()} == {"probes"}
    assert {name for name, one in judged.items() if one["outcome"] != "same"} == NOT_ON_STOCK
    ran = [one for name, one in judged.items() if name not in NOT_ON_STOCK]
    assert {one["reached"] for one in ran} == {"L0"}


# Others do not see the mounts of a mount namespace of its own.
DEVICE_WITHOUT_DRIVER = """
mount -t tmpfs tmpfs /dev/mapper && mknod /dev/mapper/control c 10 236 && exec "$0" "$@"
"""


@pytest.fixture
def dev_mapper() -> Iterator[None]:
    """The directory /dev/mapper, to mount over."""
    path = Path("/dev/mapper")
    made = not path.exists()
    path.mkdir(exist_ok=True)
    yield
    if made:
        path.rmdir()


def test_node_of_device_mapper_without_driver_is_not_run(
    scratch_space: Path, tmp_path: Path, dev_mapper: None
) -> None:
    if not mapper.unavailable():
        skip("this kernel has device-mapper", expected=True)
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", DEVICE_WITHOUT_DRIVER, COMMAND, "compare"),
            *("--scenario", "ext4_device_lookup", "ext4_trigger", "--report", str(tmp_path / "r")),
        ],
        env={**os.environ, "TMPDIR": str(scratch_space)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == SAME, done.stdout + done.stderr
    judged = outcomes(tmp_path / "r")
    assert judged["ext4_trigger"]["outcome"] == "same"
    lacking = judged["ext4_device_lookup"]
    assert lacking["outcome"] == "not run"
    assert not lacking["cell"]["machine"]
    reason = r"this kernel has no device-mapper \(/dev/mapper/control: No such device.*\)"
    assert re.fullmatch(reason, lacking["reason"])


def test_unknown_names_break_it(scratch_space: Path) -> None:
    for arguments in (["--scenario", "nosuch*"], ["--kernel", "0.99"], ["--kernel", "./none"]):
        done = compare(scratch_space, *arguments)
        assert done.returncode == BROKEN
        (line,) = done.stderr.splitlines()
        assert line.startswith("fserr-bpf: ")
        assert arguments[1].strip(".*/") in line


def test_not_root_is_not_run(scratch_space: Path) -> None:
    done = compare(scratch_space, user="65534")
    assert done.returncode == NOT_RUN
    assert done.stderr == "fserr-bpf: scratch file systems and probes need root; use sudo\n"


def test_other_stream_is_not_run(scratch_space: Path) -> None:
    done = compare(scratch_space, "--scenario", "ext4_trigger", "--stream", "proposed")
    assert done.returncode == NOT_RUN
    assert "it has nothing to compare proposed with" in done.stdout


@pytest.mark.parametrize("seconds", ["0.001", "0.7"])
def test_guest_out_of_time_is_broken(scratch_space: Path, seconds: str) -> None:
    """Also where it is ended before it can say how it ends."""
    done = compare(scratch_space, "--scenario", "ext4_*", "--timeout", seconds)
    assert done.returncode == BROKEN, done.stdout + done.stderr
    assert f"BROKEN: the guest did not end within {seconds} s" in done.stdout


def test_interrupted_leaves_nothing(scratch_space: Path) -> None:
    """The fixture looks for mounts, loop devices and folders afterwards."""
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen(
            [COMMAND, "compare"],
            env={**os.environ, "TMPDIR": str(scratch_space)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: any(scratch_space.glob("fserr-*/mnt")), "a scratch file system")
        os.killpg(process.pid, number)
        assert process.wait(60) == 130
