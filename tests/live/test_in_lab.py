"""The main job's tests on a stock kernel with kprobes, on hosts that have none."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from compare import vm
from compare.kernels import find
from compare.packages import ensure
from compare.tools import tool
from fserr_bpf.errors import LabError
from fserr_bpf.live.loader import KPROBE_PMU
from tests.live.conftest import skip

HERE = Path(__file__).parent
TESTS = ("test_native_bytes.py", "test_monitor.py", "test_run_cli.py", "test_probes_cli.py")
OPTIONS = ("-q", "-p", "no:cacheprovider", "--color=no")
TIMEOUT_SECONDS = 900


def test_main_job_on_stock_6_12(tmp_path: Path) -> None:
    if KPROBE_PMU.exists():
        skip("this kernel has kprobes: it runs these tests itself", expected=True)
    kernel = find("6.12")
    try:
        for name in ("qemu-system-x86_64", "busybox"):
            tool(name)
        ensure(kernel)
    except LabError as error:
        skip(str(error), expected=False)
    tests = [str(HERE / name) for name in TESTS]
    pytest_line = shlex.join([sys.executable, "-m", "pytest", *OPTIONS, *tests])
    script = f"FSERR_STRICT=1 exec {pytest_line} --junitxml=$FSERR_LAB_OUTPUT/junit.xml"
    said = io.BytesIO()
    try:
        status = vm.run(
            kernel,
            ["sh", "-c", script],
            timeout=TIMEOUT_SECONDS,
            output=tmp_path,
            stdout=said,
            stderr=said,
        )
    except LabError as error:
        pytest.fail(f"{error}\n{said.getvalue().decode(errors='replace')}")
    assert status == 0, said.getvalue().decode(errors="replace")
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall(".//testcase")
    ran = dict.fromkeys(TESTS, 0)
    for case in cases:
        if not list(case):  # a child says skipped, failure or error
            ran[case.get("classname", "").rpartition(".")[2] + ".py"] += 1
    native = [case for case in cases if case.get("classname", "").endswith("test_native_bytes")]
    assert all(ran.values()), ran
    assert ran["test_native_bytes.py"] == len(native)
