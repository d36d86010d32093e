"""The main job's tests on stock kernels with kprobes, on hosts that have none.

Three kernels of the matrix, one with every test; ``make test-vm`` runs all on all.
"""

from __future__ import annotations

import pytest

from compare import kernels, matrix
from compare.matrix import Outcome
from compare.packages import ensure
from compare.tools import tool
from fserr_bpf.errors import LabError
from fserr_bpf.live.loader import KPROBE_PMU
from tests.live.conftest import skip

# Each start of the command takes half a minute in an emulated machine: one kernel
# is enough for what only the command can show.
SHARED = (
    "test_monitor.py",
    "test_device_mapper.py",
    "test_probes_cli.py",
)
# What kprobes see of places, and clients taken over by them: one start of each.
PARTS = (
    "test_visibility.py",
    "test_exec_sample.py",
)
WORK = {"6.12": (*matrix.MAIN_JOB, *PARTS), "7": SHARED, "6.1": (*SHARED, *PARTS)}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """What came of each of the kernels; they run at the same time."""
    if KPROBE_PMU.exists():
        skip("this kernel has kprobes: it runs these tests itself", expected=True)
    work = [(kernels.find(name), tests) for name, tests in WORK.items()]
    try:
        for name in ("qemu-system-x86_64", "busybox"):
            tool(name)
        for kernel, _ in work:
            ensure(kernel)
    except LabError as error:
        skip(str(error), expected=False)
    return {outcome.kernel: outcome for outcome in matrix.run_matrix(work)}


@pytest.mark.parametrize("kernel", WORK)
def test_main_job(kernel: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[kernel]
    assert outcome.good, f"{matrix.table([outcome])}\n{outcome.output}"
    passed = {case.file for case in outcome.cases if case.outcome == "passed"}
    assert passed >= set(WORK[kernel]) - matrix.MAY_SKIP
    if "test_run_cli.py" in WORK[kernel]:  # which tells the cost of the start
        assert outcome.armed_seconds is not None
        assert outcome.rss_kib is not None
