"""The table of kernels by test files, from results as pytest itself writes them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fserr_bpf_compare.machines import livetests
from fserr_bpf_compare.machines.livetests import Case, Outcome

SUITE = """
import pytest

def test_good(record_testsuite_property):
    record_testsuite_property("rss_kib", "30720")
    record_testsuite_property("attach_seconds", 15.5)

def test_bad():
    assert 1 == 2

def test_not_here():
    pytest.skip("no probe")

@pytest.fixture
def broken():
    raise RuntimeError("no fixture")

def test_broken(broken):
    pass
"""


@pytest.fixture(scope="module")
def junit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JUnit XML of one test of each kind."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null"]
    subprocess.run(
        [*command, "--rootdir", folder, "--junitxml=junit.xml", "test_suite.py"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return folder / "junit.xml"


@pytest.fixture
def outcome(junit: Path) -> Outcome:
    cases, _ = livetests.read_junit(junit)
    return Outcome("6.12", "6.12.117", cases, 61.4, 15.5, 30720, "", "")


def test_junit_of_pytest_is_understood(junit: Path) -> None:
    cases, properties = livetests.read_junit(junit)
    assert [(case.name, case.outcome) for case in cases] == [
        ("test_good", "passed"),
        ("test_bad", "failed"),
        ("test_not_here", "skipped"),
        ("test_broken", "failed"),
    ]
    assert {case.file for case in cases} == {"test_suite.py"}
    assert [case.reason.partition("\n")[0] for case in cases] == [
        "",
        "assert 1 == 2",
        "no probe",
        'failed on setup with "RuntimeError: no fixture"',
    ]
    assert properties == {"rss_kib": "30720", "attach_seconds": "15.5"}


def test_table_has_every_kernel_and_each_reason_once(outcome: Outcome) -> None:
    panicked = Outcome("7", "7.3.4", (), 5.0, None, None, "7.3.4: kernel panic: x", "")
    skipping = tuple(case for case in outcome.cases if case.outcome == "skipped")
    older = replace(outcome, kernel="6.1", cases=(*skipping, *skipping))
    lines = livetests.table([outcome, older, panicked]).splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["passed/failed/skipped", "6.12", "6.1", "7"],
        ["test_suite.py", "1/2/1", "0/0/2", "-"],
        ["seconds", "61", "61", "5"],
        ["seconds", "to", "attached", "15.5", "15.5", "-"],
        ["RSS", "in", "MiB", "30.0", "30.0", "-"],
    ]
    assert lines[-1] == "skipped: no probe: 6.12 x1, 6.1 x2"
    assert lines[5] == "7: 7.3.4: kernel panic: x"
    assert lines[6] == "6.12: failed test_suite.py::test_bad: assert 1 == 2"


def test_good_means_something_passed_and_nothing_failed(outcome: Outcome) -> None:
    good = Case("test_suite.py", "test_good", "passed", "")
    skipped = Case("test_suite.py", "test_not_here", "skipped", "no probe")
    assert not outcome.good
    assert replace(outcome, cases=(good, skipped)).good
    assert not replace(outcome, cases=(skipped,)).good
    assert not replace(outcome, cases=()).good
    assert not replace(outcome, cases=(good,), error="kernel panic").good
