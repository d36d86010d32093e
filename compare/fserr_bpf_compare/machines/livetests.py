"""``make test-vm``: the live tests of the main job in every kernel of the lab, as one table.

Each machine runs pytest over the same test files and leaves its results as JUnit XML,
with the suite properties ``attach_seconds`` and ``rss_kib`` of the real command.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from fserr_bpf.errors import FserrError, LabError
from fserr_bpf_compare.machines import kernels, packages, vm
from fserr_bpf_compare.machines.kernels import Kernel

MAIN_JOB = (
    "test_refused_mark.py",
    "test_state.py",
    "test_state_told.py",
    "test_state_mounts.py",
    "test_doctor.py",
    "test_monitor.py",
    "test_device_mapper.py",
    "test_proposed.py",
    "test_details.py",
    "test_full_disk.py",
    "test_btrfs.py",
    "test_probes_cli.py",
    "test_run_cli.py",
    "test_namespaces.py",
    "test_interrupt.py",
    "test_ends.py",
    "test_coverage.py",
    "test_deaf.py",
)
TESTS = (
    *MAIN_JOB,
    "test_elsewhere.py",
    "test_visibility.py",
    "test_visibility_places.py",
    "test_visibility_views.py",
    "test_cgroups.py",
    "test_watch_files.py",
    "test_watch_hooks.py",
    "test_postgresql.py",
    "test_seccomp.py",
    "test_client.py",
    "test_client_context.py",
    "test_client_paths.py",
    "test_channel.py",
    "test_exec_clients.py",
    "test_exec_process.py",
    "test_exec_sample.py",
)
# Every test of these may be skipped, for what the kernel's configuration lacks.
MAY_SKIP = frozenset({"test_interrupt.py", "test_btrfs.py", "test_refused_mark.py"})
JOBS = 2
TIMEOUT = 3600.0  # seconds for one machine: emulated ones are slow

_PROGRAM = "fserr_bpf_compare.machines.livetests"
_ROOT = Path(__file__).parents[3]
_LIVE = _ROOT / "tests/live"
_PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--color=no")


@dataclass(frozen=True)
class Case:
    """One test: ``file`` as in ``TESTS``, ``outcome`` passed, failed or skipped."""

    file: str
    name: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What came of one kernel; ``error`` is why the machine did not end by itself.

    ``seconds`` is the machine's life, ``attach_seconds`` the time of ``fserr-bpf run``
    from start to attached, ``rss_kib`` its memory then; None where that test did not run.
    """

    kernel: str
    release: str
    cases: tuple[Case, ...]
    seconds: float
    attach_seconds: float | None
    rss_kib: int | None
    error: str
    output: str

    @property
    def good(self) -> bool:
        """Whether every test ran to a pass or an expected skip, and there were some."""
        outcomes = {case.outcome for case in self.cases}
        return not self.error and "passed" in outcomes and "failed" not in outcomes

    @property
    def twice(self) -> tuple[str, ...]:
        """The tests that were run again after a failure, as pytest names them."""
        return tuple(dict.fromkeys(re.findall(r"^RERUN (\S+)", self.output, re.MULTILINE)))


def read_junit(path: Path) -> tuple[tuple[Case, ...], dict[str, str]]:
    """The cases and the suite's properties of pytest's JUnit XML."""
    root = ElementTree.parse(path).getroot()
    cases = []
    for element in root.iter("testcase"):
        file = element.get("classname", "").rpartition(".")[2] + ".py"
        results = [(child.tag, child.get("message", "")) for child in element]
        bad = [reason for tag, reason in results if tag in ("failure", "error")]
        skipped = [reason for tag, reason in results if tag == "skipped"]
        outcome = "failed" if bad else "skipped" if skipped else "passed"
        reason = (bad or skipped or [""])[0]
        cases.append(Case(file, element.get("name", ""), outcome, reason))
    properties = {p.get("name", ""): p.get("value", "") for p in root.iter("property")}
    return tuple(cases), properties


def run_kernel(kernel: Kernel, tests: Sequence[str], cancel: threading.Event) -> Outcome:
    """Boot ``kernel`` and run ``tests`` in it: files below ``tests/live``, or parts of them.

    Never raises for what happens to the kernel or the machine: that is the outcome.
    """
    command = [sys.executable, *_PYTEST, *(str(_LIVE / test) for test in tests)]
    script = f"FSERR_STRICT=1 exec {shlex.join(command)} --junitxml=$FSERR_LAB_OUTPUT/junit.xml"
    begin = time.monotonic()
    release, error, output = "", "", io.BytesIO()
    cases: tuple[Case, ...] = ()
    properties: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fserr-livetests-") as folder:
        junit = Path(folder) / "junit.xml"
        try:
            release = packages.ensure(kernel).release
            status = vm.run(
                kernel,
                ["sh", "-c", script],
                timeout=TIMEOUT,
                output=Path(folder),
                stdout=output,
                stderr=output,
                cancel=cancel,
            )
            if status not in (0, 1):  # 1 says that tests failed
                error = f"pytest ended with status {status}"
        except LabError as failure:
            error = str(failure)
        if junit.exists():
            cases, properties = read_junit(junit)
    attached, rss = properties.get("attach_seconds"), properties.get("rss_kib")
    return Outcome(
        kernel=kernel.name,
        release=release,
        cases=cases,
        seconds=time.monotonic() - begin,
        attach_seconds=float(attached) if attached else None,
        rss_kib=int(rss) if rss else None,
        error=error,
        output=output.getvalue().decode(errors="replace"),
    )


def run_kernels(work: Sequence[tuple[Kernel, Sequence[str]]], jobs: int = JOBS) -> list[Outcome]:
    """The outcome of each kernel with its tests, in order; ``jobs`` machines run at a time."""
    cancel = threading.Event()

    def one(kernel_and_tests: tuple[Kernel, Sequence[str]]) -> Outcome:
        outcome = run_kernel(*kernel_and_tests, cancel)
        output = "" if outcome.good and not outcome.twice else outcome.output
        print(f"{output}{summary(outcome)}", file=sys.stderr, flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(one, work))
        except BaseException:  # Ctrl-C too: the machines must not run on
            cancel.set()
            pool.shutdown(cancel_futures=True)
            raise


def summary(outcome: Outcome) -> str:
    """The kernel's line."""
    counts = Counter(case.outcome for case in outcome.cases)
    words = [f"{counts[kind]} {kind}" for kind in ("passed", "failed", "skipped")]
    words.append(f"{outcome.seconds:.0f} s")
    if outcome.attach_seconds is not None and outcome.rss_kib is not None:
        words.append(f"attached in {outcome.attach_seconds:.1f} s")
        words.append(f"RSS {outcome.rss_kib / 1024:.1f} MiB")
    if outcome.twice:
        words.append(f"run twice: {' '.join(outcome.twice)}")
    if outcome.error:
        words.append(outcome.error)
    return f"{outcome.kernel} ({outcome.release or 'not fetched'}): {', '.join(words)}"


def table(outcomes: Sequence[Outcome]) -> str:
    """Kernels by test files, each cell passed/failed/skipped; then failures and skips."""
    files = list(dict.fromkeys(case.file for o in outcomes for case in o.cases))
    rows = [["passed/failed/skipped", *(outcome.kernel for outcome in outcomes)]]
    for file in files:
        row = [file]
        for outcome in outcomes:
            counts = Counter(case.outcome for case in outcome.cases if case.file == file)
            kinds = ("passed", "failed", "skipped")
            row.append("/".join(str(counts[kind]) for kind in kinds) if counts else "-")
        rows.append(row)
    rows.append(["seconds", *(f"{outcome.seconds:.0f}" for outcome in outcomes)])
    attached = [outcome.attach_seconds for outcome in outcomes]
    rows.append(
        ["seconds to attached", *("-" if value is None else f"{value:.1f}" for value in attached)]
    )
    memory = [outcome.rss_kib for outcome in outcomes]
    rows.append(["RSS in MiB", *("-" if kib is None else f"{kib / 1024:.1f}" for kib in memory)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([*lines, *_reasons(outcomes)])


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Errors of machines, failed tests, and each reason to skip with the kernels it holds for."""
    lines = [f"{outcome.kernel}: {outcome.error}" for outcome in outcomes if outcome.error]
    skips: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for case in outcome.cases:
            if case.outcome == "failed":
                why = case.reason.partition("\n")[0]
                lines.append(f"{outcome.kernel}: failed {case.file}::{case.name}: {why}")
            elif case.outcome == "skipped":
                skips.setdefault(case.reason, Counter())[outcome.kernel] += 1
    for reason, where in skips.items():
        tests = ", ".join(f"{kernel} x{count}" for kernel, count in where.items())
        lines.append(f"skipped: {reason}: {tests}")
    return lines


def main() -> int:
    """Exit status 1 if a test failed or a machine did not do its work."""
    parser = argparse.ArgumentParser(
        prog="fserr_bpf_compare.machines.livetests", description=__doc__
    )
    parser.add_argument("--kernel", action="append", metavar="K", help="default: all of the lab")
    parser.add_argument("--jobs", type=int, default=JOBS, help="machines at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the outcome of every test")
    parser.add_argument("tests", nargs="*", default=TESTS, help="files in tests/live, or node ids")
    arguments = parser.parse_args()
    try:
        chosen = [kernels.find(k) for k in arguments.kernel or ()] or kernels.KERNELS
    except FserrError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    outcomes = run_kernels([(kernel, arguments.tests) for kernel in chosen], arguments.jobs)
    print(table(outcomes))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
