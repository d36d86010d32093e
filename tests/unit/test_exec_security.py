"""The rows of docs/exec-security.md are those that tests carry, and name these tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/exec-security.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|(?:[^|]+\|){3}([^|]+)\|$", re.MULTILINE)


def documented() -> list[tuple[str, list[str]]]:
    """Each row's name and the tests in its last column."""
    return [
        (name, re.findall(r"`(tests/\S+\.py::\w+)`", tests))
        for name, tests in ROW.findall(DOCUMENT.read_text())
    ]


def carried() -> Iterator[tuple[str, str]]:
    """Row and test, as the marks in the test files say."""
    for path in sorted(ROOT.glob("tests/*/test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.threat":
                    for row in mark.args:
                        test = f"{path.relative_to(ROOT)}::{node.name}"
                        yield str(ast.literal_eval(row)), test


def test_tests_carry_the_rows_that_name_them() -> None:
    wanted = {(row, test) for row, tests in documented() for test in tests}
    assert wanted
    assert set(carried()) == wanted


def test_each_row_has_a_name_of_its_own_and_a_test() -> None:
    rows = documented()
    names = [name for name, _ in rows]
    assert len(set(names)) == len(names)
    assert [name for name, tests in rows if not tests] == []


def test_every_line_of_the_tables_is_a_row() -> None:
    """One that is written in another way would be held against nothing."""
    tables = DOCUMENT.read_text().partition("\n## Each thing that is touched\n")[2]
    lines = [line for line in tables.splitlines() if line.startswith("|")]
    heads = [line for line in lines if line.startswith(("| row |", "|---"))]
    assert len(lines) - len(heads) == len(documented())
