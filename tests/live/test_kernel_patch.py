"""The patch series: it applies to its base, and the kernel that it makes says what we say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.bootable import bootable
from fserr_bpf_compare.scenarios import SCENARIOS
from tests.live.conftest import IN_LAB, skip

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))


def test_series_applies_and_pleases_checkpatch() -> None:
    if IN_LAB:
        skip("the host checks it", expected=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "kernel-patch/check"), "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    series = (ROOT / "kernel-patch/series").read_text().split()
    assert [line for line in done.stderr.splitlines() if line.endswith(".patch")]
    for patch in series:
        assert patch in done.stderr


def test_patched_kernel_sends_what_is_emulated(tmp_path: Path) -> None:
    if IN_LAB:
        skip("the host boots it", expected=True)
    try:
        bootable("patched")
    except LabError as error:  # ten minutes: not in every run of the tests
        skip(str(error), expected=True)
    done = subprocess.run(
        [COMMAND, "compare", "--kernel", "patched", "--report", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads((tmp_path / "report.json").read_text())["cells"]
    assert [judged["cell"]["scenario"] for judged in cells] == [s.name for s in SCENARIOS]
    assert {judged["outcome"] for judged in cells} <= {"same", "not run"}
    # what the series does not send yet is tolerated by name
    compared = [judged for judged in cells if judged["outcome"] == "same"]
    assert {judged["reached"] for judged in compared if not judged["tolerated"]} == {"L0"}
    assert {judged["cell"]["stream"] for judged in compared} == {"proposed"}
