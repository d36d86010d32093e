"""The real command, ``fserr-bpf doctor``: what it finds, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.cli.doctor import EXIT_PROBLEM
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf_compare.faults.scratch import run, scratch
from tests.live.conftest import skip, wait_until, write_trigger

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("scratch_space", "file_systems"),
    # what one has made must not look like what another has left
    pytest.mark.xdist_group("doctor"),
]

UUID = "3e0a0d3c-6f2f-4d53-8ba6-7d6f0b0f9c11"
COMMAND = [str(Path(sys.executable).with_name("fserr-bpf")), "doctor"]


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*COMMAND, "--json", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, json.loads(done.stdout)


def left() -> list[str]:
    """Loop devices and folders of a self-test."""
    loops = run("losetup", "--noheadings", "--raw", "--output", "BACK-FILE").splitlines()
    folders = Path(os.environ.get("TMPDIR", "/tmp")).glob("fserr-doctor-*")
    return [*(image for image in loops if "fserr-doctor-" in image), *map(str, folders)]


def test_self_test_is_heard_and_leaves_nothing() -> None:
    with scratch("ext4") as good:
        code, report = doctor(str(good.mount_point))
        assert (report["v"], report["kernel"]) == (1, os.uname().release)
        tests = {each["fstype"]: each for each in report["self_test"]}
        assert set(tests) == {"ext4", "xfs", "btrfs"}
        for tested in tests.values():
            assert tested["logged"], tested
            assert tested["heard"], tested
        problems = [f for f in report["findings"] if f["level"] == "problem"]
        assert (code, report["ok"], problems) == (0, True, [])
        (state,) = report["file_systems"]
        assert (state["device"], state["condition"]) == (good.device_name, "ok")
    wait_until(lambda: left() == [], "all to be taken away, also by another self-test")


def test_problems_have_remedies_and_an_exit_code() -> None:
    with scratch("ext4", uuid=UUID) as fs, scratch("ext4", uuid=UUID) as twin:
        write_trigger(fs.device_name, 1)
        paths = [str(fs.mount_point), str(twin.mount_point)]

        def problems() -> list[tuple[str, str]]:
            code, report = doctor("--no-self-test", *paths)
            assert (code, report["ok"], report["self_test"]) == (EXIT_PROBLEM, False, [])
            found = [f for f in report["findings"] if f["level"] == "problem"]
            assert all(f["remedy"] for f in found)
            return [(f["subject"], f["finding"]) for f in found]

        wait_until(lambda: any("errors on record" in what for _, what in problems()), "the record")
        words = f"ext4 on {fs.device_name}: errors; the superblock has errors on record"
        other = "its fsid is that of {}: raw events do not distinguish them"
        assert sorted(problems()) == sorted(
            [
                (paths[0], words),
                (paths[0], other.format(paths[1])),
                (paths[1], other.format(paths[0])),
            ]
        )


def test_signal_takes_all_away() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert any(b"breaking scratch images" in line for line in process.stderr)
        wait_until(lambda: bool(left()) or process.poll() is not None, "the self-test")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode in (0, EXIT_PROBLEM, 130)
    wait_until(lambda: left() == [], "all to be taken away, also by another self-test")


def test_switch_that_makes_probes_deaf_is_a_problem() -> None:
    if not KPROBE_PMU.exists():
        skip("this kernel has no kprobes", expected=True)
    run("sysctl", "-q", "kernel.ftrace_enabled=0")
    try:
        with scratch("xfs") as fs:
            code, report = doctor("--no-self-test", str(fs.mount_point))
    finally:
        run("sysctl", "-q", "kernel.ftrace_enabled=1")
    assert code == EXIT_PROBLEM
    (problem,) = (f for f in report["findings"] if f["level"] == "problem")
    assert problem["subject"] == "kernel/ftrace_enabled"
    assert problem["remedy"] == "run sysctl kernel.ftrace_enabled=1"
