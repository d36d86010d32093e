"""The table of tolerances: what is refused, and what a run did not need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf_compare.scenarios import SCENARIOS
from fserr_bpf_compare.verdict.cells import Cell, Judged, Level, Outcome
from fserr_bpf_compare.verdict.levels import FIELDS
from fserr_bpf_compare.verdict.tolerances import Tolerance, load, stale

ENTRY = """\
[[tolerance]]
id = "worker-pid"
scenario = "xfs_*"
kernels = ["6.12.*", "7.*"]
field = "pid"
reason = "the worker differs"
link = "0123456789ab"
"""


def refused(tmp_path: Path, text: str) -> str:
    table = tmp_path / "table.toml"
    table.write_text(text)
    with pytest.raises(LabError) as caught:
        load(table)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_entry_is_read_as_it_is_written(tmp_path: Path) -> None:
    table = tmp_path / "table.toml"
    table.write_text(ENTRY + ENTRY.replace("worker-pid", "b").replace("0123456789ab", "https://x"))
    entry = Tolerance(
        "worker-pid", "xfs_*", ("6.12.*", "7.*"), "pid", "the worker differs", "0123456789ab"
    )
    assert load(table) == (entry, entry._replace(id="b", link="https://x"))


def test_a_table_may_be_empty(tmp_path: Path) -> None:
    table = tmp_path / "table.toml"
    table.write_text("# nothing is allowed\n")
    assert load(table) == ()


def test_the_table_of_the_tree_is_valid_and_about_scenarios_that_exist() -> None:
    for entry in load():
        cells = [Cell("", "", scenario.name, "native") for scenario in SCENARIOS]
        assert any(entry._replace(kernels=("*",)).covers(cell) for cell in cells), entry.id


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[tolerance]", "cannot be read"),
        (ENTRY.replace("tolerance]]", "tolerate]]"), "has the unknown key 'tolerate'"),
        (ENTRY.replace("[[tolerance]]", "[tolerance]"), "has a [tolerance] that is not a list"),
        ("tolerance = [1]", "entry 1 is not a table"),
        (ENTRY + "kernel = 1\n", "entry 1 (worker-pid) has the unknown key 'kernel'"),
        (ENTRY + ENTRY, "has the id 'worker-pid' twice"),
        (ENTRY.replace('["6.12.*", "7.*"]', '"7.*"'), "has no list of kernels"),
        (ENTRY.replace('["6.12.*", "7.*"]', "[]"), "has no list of kernels"),
        (ENTRY.replace('"7.*"', "7"), "has 7 as kernels"),
        (ENTRY.replace('"7.*"', '"7.["'), "has '7.[' as kernels"),
        (ENTRY.replace('"xfs_*"', '"XFS"'), "has 'XFS' as scenario"),
        (ENTRY.replace('"pid"', '"pids"'), "has 'pids' as field"),
        (ENTRY.replace('"the worker differs"', '""'), "has '' as reason"),
        (ENTRY.replace('"0123456789ab"', '"see the list"'), "has 'see the list' as link"),
        (ENTRY.replace('"worker-pid"', "3"), "entry 1 has 3 as id"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    said = refused(tmp_path, text)
    assert said.startswith("table.toml")
    assert words in said
    assert "; " in said, "no remedy"


@pytest.mark.parametrize("key", ["id", "scenario", "kernels", "field", "reason", "link"])
def test_no_key_may_be_missing(tmp_path: Path, key: str) -> None:
    lines = [line for line in ENTRY.splitlines() if not line.startswith(key)]
    assert f"has no {key}; add {key} = " in refused(tmp_path, "\n".join(lines))


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"^none\.toml: cannot be read: .*; repair it$"):
        load(tmp_path / "none.toml")


def judged(release: str, outcome: Outcome, *tolerated: str) -> Judged:
    cell = Cell("k", release, "xfs_agf", "fserror")
    return Judged(cell, outcome, Level.L2, Level.L2, (), tolerated)


PID = Tolerance("worker-pid", "xfs_*", ("7.*",), "pid", "chance", "https://x")
LINE = "stale tolerance: worker-pid was not needed; remove it from tolerances.toml"


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        ([judged("7.3.4", Outcome.SAME)], (LINE,)),
        ([judged("7.3.4", Outcome.DIFFERENT)], (LINE,)),
        ([judged("7.3.4", Outcome.SAME, "other")], (LINE,)),
        ([judged("7.3.4", Outcome.SAME, "worker-pid")], ()),
        # needed by one kernel of two
        ([judged("7.3.4", Outcome.SAME), judged("7.2.1", Outcome.DIFFERENT, "worker-pid")], ()),
        # not in this run, or not compared in it
        ([judged("6.12.9", Outcome.SAME)], ()),
        ([judged("7.3.4", Outcome.BROKEN)], ()),
        ([judged("7.3.4", Outcome.NOT_RUN), judged("6.12.9", Outcome.SAME)], ()),
        ([], ()),
    ],
)
def test_an_entry_that_its_cells_did_not_need_is_stale(
    run: list[Judged], lines: tuple[str, ...]
) -> None:
    assert stale((PID,), run) == lines


def test_the_document_has_every_field() -> None:
    text = (Path(__file__).parents[2] / "docs/compare.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| `field` |")]
    assert set(re.findall(r"`(\w+)`", row)) == FIELDS | {"field"}
