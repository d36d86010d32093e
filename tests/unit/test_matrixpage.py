"""docs/matrix.md: held against the scenarios, the kernels and what they promise."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from fserr_bpf_compare.machines import kernels
from fserr_bpf_compare.report import document, matrixpage
from fserr_bpf_compare.scenarios import SCENARIOS
from fserr_bpf_compare.scenarios.scenario import Need
from fserr_bpf_compare.verdict.profiles import profile, version_of
from tests.unit.report_cells import RUN, cell, judged, one_of_each
from tests.unit.test_docs import rows

ROOT = Path(__file__).parents[2]
PATCHED = "patched"
OUTCOMES = {"not run": "not run", "DIFFERENT": "different", "BROKEN": "broken"}


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs/matrix.md").read_text()


@pytest.fixture(scope="module")
def releases(page: str) -> dict[str, str]:
    """Of each column the release."""
    _, *found = (row for row in rows(page, 3) if not row[0].startswith("`"))
    return {name: release for name, release, _ in found}


@pytest.fixture(scope="module")
def cells(page: str, releases: dict[str, str]) -> dict[str, dict[str, str]]:
    """The cells by scenario and column."""
    table = [row for row in rows(page, len(releases) + 2) if row[0].startswith("`")]
    return {row[0].strip("`"): dict(zip(releases, row[1:-1], strict=True)) for row in table}


def test_every_scenario_has_its_row_and_its_summary(page: str, releases: dict[str, str]) -> None:
    table = [row for row in rows(page, len(releases) + 2) if row[0].startswith("`")]
    summaries = [(row[0].strip("`"), row[-1].replace("\\|", "|")) for row in table]
    assert summaries == [(scenario.name, scenario.summary) for scenario in SCENARIOS]


def test_every_kernel_with_the_mark_has_its_column(releases: dict[str, str]) -> None:
    lab = {kernel.name for kernel in kernels.KERNELS if "refuses the mark" not in kernel.reason}
    assert lab <= releases.keys()
    for name in lab:
        assert releases[name].startswith(f"{name}."), name


def test_cells_keep_what_the_kernel_promises(
    cells: dict[str, dict[str, str]], releases: dict[str, str]
) -> None:
    levels = {}
    for name, release in releases.items():
        promised = profile(version_of(release), None, patched=name == PATCHED).level
        assert promised is not None
        # what the patch series does not send yet is tolerated: verdict/tolerances.toml
        signs = ("", " ∅", "*") if name == PATCHED else ("", " ∅")
        levels[name] = {f"L{n}{sign}" for n in range(promised + 1) for sign in signs}
    bad = {
        f"{scenario} on {kernel}: {cell}"
        for scenario, row in cells.items()
        for kernel, cell in row.items()
        if cell != "not run" and cell not in levels[kernel]
    }
    assert bad == set()


def test_every_scenario_ran_somewhere(
    cells: dict[str, dict[str, str]], releases: dict[str, str]
) -> None:
    """Those of the proposal only where the patched kernel was there."""
    idle = {name for name, row in cells.items() if set(row.values()) == {"not run"}}
    proposed = {scenario.name for scenario in SCENARIOS if Need.PATCHED in scenario.needs}
    assert idle == (set() if PATCHED in releases else proposed)


def test_totals_are_those_of_the_cells(page: str, cells: dict[str, dict[str, str]]) -> None:
    counts = Counter(OUTCOMES.get(cell, "same") for row in cells.values() for cell in row.values())
    total = re.search(r"^Cells: (.*)\.$", page, re.MULTILINE)
    assert total is not None
    outcomes = ("same", "different", "broken", "not run")
    assert total[1] == ", ".join(f"{counts[outcome]} {outcome}" for outcome in outcomes)


def test_page_of_one_cell_of_each_outcome() -> None:
    text = matrixpage.render([(one_of_each(), RUN)])
    run = "`fserr-bpf compare --kernel 6.12 --scenario 'xfs_*'`"
    assert f"| {run} | 2026-03-01 12:30 UTC | 12 min 34 s | 6.18.44 |\n" in text
    assert "\nCells: 1 same, 1 different, 1 broken, 1 not run.\n" in text
    assert "| 6.12 | 6.12.117+deb13-amd64 | native, probes |\n" in text
    assert "| `ext4_trigger` | L0 | not run | writes to trigger_fs_error in sysfs |\n" in text
    assert "| `ext4_htree` | DIFFERENT | - |  |\n" in text
    assert "\n- DIFFERENT: event 0 pid: 3859 / 3860; event 1 event: " in text
    assert (
        "- not run: this kernel has no FAN_FS_ERROR: it refuses the mark: ext4_trigger on 5.10\n"
        in text
    )


def test_last_report_of_a_kernel_counts() -> None:
    again = [judged(cell(kernel=kernel)) for kernel in ("5.10", "7")]
    text = matrixpage.render([(one_of_each(), RUN), (again, RUN)])
    assert "| `ext4_trigger` | L0 | L0 | L0 | writes to trigger_fs_error in sysfs |\n" in text
    assert "| scenario | 6.12 | 5.10 | 7 | what happens |\n" in text
    assert "\nCells: 3 same, 1 different, 1 broken, 0 not run.\n" in text
    assert text.count("2026-03-01 12:30 UTC") == 2


def test_report_becomes_the_page(tmp_path: Path) -> None:
    report, page = tmp_path / "report.json", tmp_path / "matrix.md"
    report.write_text(document.render(one_of_each(), RUN))
    assert matrixpage.main([str(report), str(page)]) == 0
    assert page.read_text() == matrixpage.render([(one_of_each(), RUN)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read {}: No such file or directory; run make compare first"),
        ("{}", "{} is not a report of this version; run make compare"),
    ],
)
def test_what_is_no_report_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    report = tmp_path / "report.json"
    if text is not None:
        report.write_text(text)
    assert matrixpage.main([str(report), str(tmp_path / "page")]) == 10
    assert capsys.readouterr().err == f"matrixpage: {words.format(report)}\n"
    assert not (tmp_path / "page").exists()
