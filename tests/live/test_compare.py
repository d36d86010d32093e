"""``fserr-bpf compare`` as its user types it: cells, exit status, files, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from compare.kernels import find
from compare.packages import ensure
from compare.scenario import Need
from compare.scenarios import SCENARIOS
from compare.tools import tool
from fserr_bpf.errors import LabError
from fserr_bpf.live.loader import KPROBE_PMU
from tests.live.conftest import IN_LAB, skip, wait_until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
SAME, DIFFERENT, BROKEN, NOT_RUN = 0, 1, 2, 3
# Needs device-mapper or kprobes, which small kernels have not.
NOT_HERE = {s.name for s in SCENARIOS if s.needs & {Need.DEVICE_MAPPER, Need.PROBES}}
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
    try:
        for name in ("qemu-system-x86_64", "busybox"):
            tool(name)
        ensure(find("6.12"))
    except LabError as error:
        skip(str(error), expected=False)
    done = compare(scratch_space, "--kernel", "6.12", "--report", str(tmp_path / "r"))
    assert done.returncode == SAME, done.stdout + done.stderr
    judged = outcomes(tmp_path / "r")
    assert {one["cell"]["basis"] for one in judged.values()} == {"probes"}
    assert {name for name, one in judged.items() if one["outcome"] != "same"} == NOT_ON_STOCK
    ran = [one for name, one in judged.items() if name not in NOT_ON_STOCK]
    assert {one["reached"] for one in ran} == {"L0"}


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
    assert "there is nothing to compare proposed with" in done.stdout


def test_guest_out_of_time_is_broken(scratch_space: Path) -> None:
    done = compare(scratch_space, "--scenario", "ext4_*", "--timeout", "0.7")
    assert done.returncode == BROKEN
    assert "the guest did not end within 0.7 s" in done.stdout


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
