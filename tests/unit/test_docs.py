"""What the documents say about the code, held against the code."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from compare import kernels
from compare.scenarios import SCENARIOS
from fserr_bpf import cli, errors
from fserr_bpf.cli.probes import EXIT_BLIND
from fserr_bpf.errors import FserrError
from fserr_bpf.live.probes import PROBES, Kernel, wanted
from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.record import RECORD, Flag, Probe, Record

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FAMILY = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FserrError)]
EXIT_CODES = {0, EXIT_BLIND, 130, *(kind.exit_code for kind in FAMILY)}


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of every table row of this width, without its header's ruler."""
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    cells = [[cell.strip() for cell in row] for row in found]
    return [row for row in cells if len(row) == columns and set(row[0]) != {"-"}]


def test_readme_codec_example_prints_what_it_says() -> None:
    """Without root, without bcc, without the packages of this environment."""
    example = r"```python\n(from fserr_bpf\.codec.*?)```\s+```\n(.*?)```"
    found = re.search(example, text_of("README.md"), re.DOTALL)
    assert found is not None
    code, said = found.groups()
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.parametrize("name", ["README.md", "docs/fserr-bpf.8.md"])
def test_exit_codes_are_those_of_the_classes(name: str) -> None:
    table = {int(code): why for code, why in rows(text_of(name), 2) if code.isdigit()}
    assert table.keys() == EXIT_CODES
    for kind in FAMILY:
        assert kind.__name__ in table[kind.exit_code], kind


def test_each_exit_code_has_one_meaning() -> None:
    assert len(EXIT_CODES) == len(FAMILY) + 3


def test_matrix_has_every_kernel_of_the_lab() -> None:
    releases = [row[0].partition(" ")[0] + "." for row in rows(text_of("README.md"), 6)]
    for kernel in kernels.KERNELS:
        assert any(release.startswith(f"{kernel.name}.") for release in releases), kernel.name


def test_named_tests_exist() -> None:
    named = [
        (file, test)
        for document in DOCUMENTS
        for file, test in re.findall(r"(tests/\w+/\w+\.py)::(\w+)", document.read_text())
    ]
    assert len(named) > 20
    missing = []
    for file, test in named:
        path = ROOT / file
        tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
        if test not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{file}::{test}")
    assert missing == []


def test_named_scenarios_exist() -> None:
    text = text_of("docs/fidelity.md")
    named = [
        name
        for line in re.findall(r"scenarios? (`\w+`(?:, `\w+`)*)", text)
        for name in re.findall(r"\w+", line)
    ]
    assert len(named) > 10
    assert set(named) <= {scenario.name for scenario in SCENARIOS}


def test_readme_matrix_has_every_scenario_and_no_difference() -> None:
    rows = re.findall(
        r"^(\w+) +((?:(?:L0(?: ∅)?|not run) *)+)$", text_of("README.md"), re.MULTILINE
    )
    assert [name for name, _ in rows] == [scenario.name for scenario in SCENARIOS]
    assert all("L0" in cells for _, cells in rows)


def test_relative_links_lead_somewhere() -> None:
    dead = [
        f"{document.name}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert dead == []


def test_record_table_is_the_layout() -> None:
    table = [(r[0], r[1].strip("`"), r[2]) for r in rows(text_of("docs/record-format.md"), 4)]
    types = {"B": "u8", "H": "u16", "I": "u32", "i": "s32", "Q": "u64"}
    expected = [("offset", "field", "type")]
    offset = 0
    for name, code in zip(Record._fields, re.findall(r"\d*[a-zA-Z]", RECORD.format), strict=True):
        size = int(code[:-1]) if code[:-1] else {"B": 1, "H": 2, "I": 4, "i": 4, "Q": 8}[code]
        expected.append((str(offset), name, types.get(code, f"char[{size}]")))
        offset += size
    assert table == expected
    assert offset == RECORD.size


def test_flag_table_is_the_enumeration() -> None:
    table = [(r[0].strip("`"), r[1]) for r in rows(text_of("docs/record-format.md"), 3)]
    expected = [(str(f.name), str(int(f).bit_length() - 1)) for f in Flag]
    assert [row for row in table if row[1].isdigit() and row[0].isupper()] == expected


def kernel_with(*features: str) -> Kernel:
    names = [field.name for field in fields(Kernel)]
    assert set(features) <= set(names)
    return Kernel(**{name: name in features for name in names})


KERNELS = {
    "6.8-": kernel_with("kprobes"),
    "6.9+": kernel_with("kprobes", "sick"),
    "7.x": kernel_with("kprobes", "sick", "fserror"),
    "none": kernel_with("sick"),
}


def test_stream_table_is_what_is_wanted() -> None:
    header, *table = rows(text_of("docs/streams.md"), 7)
    assert header[1:5] == list(KERNELS)
    described = {row[0].strip("`"): row[1:5] for row in table}
    expected = {
        spec.probe.name.lower(): [
            "".join(s[0].upper() for s in Stream if spec.probe in wanted(s, kernel))
            for kernel in KERNELS.values()
        ]
        for spec in PROBES
        if spec.probe is not Probe.EXT4_ABORT
    }
    assert described == expected


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every long option of the whole grammar."""
    for action in parser._actions:
        yield from (o for o in action.option_strings if o.startswith("--") and o != "--help")
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield str(name)
                yield from options(sub)


def test_manual_has_every_command_and_option() -> None:
    manual = text_of("docs/fserr-bpf.8.md")
    for option in set(options(cli.parser())):
        assert re.search(rf"[`* ]{re.escape(option)}\b", manual), option
    for option in re.findall(r"--[a-z][a-z-]*", manual):
        assert option in {*options(cli.parser()), "--help"}, option
