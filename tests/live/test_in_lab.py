"""The main job's tests on stock kernels with kprobes, on hosts that have none.

Three kernels of the matrix, one with every test; ``make test-vm`` runs all on all.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf_compare.machines import kernels, livetests
from fserr_bpf_compare.machines.kernels import Kernel
from tests.live.conftest import TWICE, skip
from tests.live.machine import require_machine
from tests.sample_reader import sample_source

# Each start of the command takes half a minute in an emulated machine: one kernel
# is enough for what only the command can show.
SHARED = (
    "test_state.py",
    "test_state_told.py",
    "test_state_mounts.py",
    "test_monitor.py",
    "test_device_mapper.py",
    "test_probes_cli.py",
)
# What kprobes see of places, and clients taken over by them: one start of each.
PARTS = (
    "test_visibility.py",
    "test_exec_sample.py",
)
OTHERS = ("test_details.py", "test_namespaces.py", *PARTS)
# the longest first; one kernel has two machines, which can be side by side
WORK = {
    "6.12": tuple(file for file in livetests.MAIN_JOB if file not in OTHERS),
    "6.12 others": OTHERS,
    "6.1": (*SHARED, *PARTS),
    "7": SHARED,
}


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Kernel:
    """The kernel of the parameter, if it can be booted and there is a need."""
    if KPROBE_PMU.exists():
        skip("this kernel has kprobes: it runs these tests itself", expected=True)
    kernel = kernels.find(request.param.partition(" ")[0])
    require_machine(kernel.name)
    return kernel


@pytest.mark.parametrize(("machine", "files"), WORK.items(), ids=WORK, indirect=["machine"])
def test_main_job(
    machine: Kernel, files: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    if "test_exec_sample.py" in files:
        sample_source()  # a machine of the lab has no network to fetch it
    (outcome,) = livetests.run_kernels([(machine, files)])
    for name in outcome.twice:
        record_property(TWICE, name)
    assert outcome.good, f"{livetests.table([outcome])}\n{outcome.output}"
    passed = {case.file for case in outcome.cases if case.outcome == "passed"}
    assert passed >= set(files) - livetests.MAY_SKIP
    if "test_run_cli.py" in files:  # which tells the cost of the start
        assert outcome.attach_seconds is not None
        assert outcome.rss_kib is not None
