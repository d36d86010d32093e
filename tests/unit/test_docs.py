"""What the documents say about the code, held against the code."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from fserr_bpf import cli, errors
from fserr_bpf.cli.doctor import EXIT_PROBLEM
from fserr_bpf.cli.probes import EXIT_BLIND
from fserr_bpf.cli.status import EXIT_NOT_OK
from fserr_bpf.errors import FserrError
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.probes.table import PROBES, Kernel, wanted
from fserr_bpf.uapi.record import RECORD, Flag, Probe, Record
from fserr_bpf_compare.machines import kernels
from fserr_bpf_compare.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "kernel-patch/README.md"])
FAMILY = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FserrError)]
EXIT_CODES = {0, EXIT_BLIND, EXIT_NOT_OK, EXIT_PROBLEM, 130, *(kind.exit_code for kind in FAMILY)}


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of every table row of this width, without its header's ruler."""
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    cells = [[cell.strip() for cell in row] for row in found]
    return [row for row in cells if len(row) == columns and set(row[0]) != {"-"}]


def test_codec_example_prints_what_it_says() -> None:
    """Without root, without bcc, without the packages of this environment."""
    example = r"```python\n(from fserr_bpf\.codec.*?)```\s+prints\s+```\n(.*?)```"
    found = re.search(example, text_of("docs/python.md"), re.DOTALL)
    assert found is not None
    code, said = found.groups()
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (said, "")


def test_exit_codes_are_those_of_the_classes() -> None:
    manual = text_of("docs/fserr-bpf.8.md")
    table = {int(code): why for code, why in rows(manual, 2) if code.isdigit()}
    assert table.keys() == EXIT_CODES
    for kind in FAMILY:
        assert kind.__name__ in table[kind.exit_code], kind


def test_each_exit_code_has_one_meaning() -> None:
    assert len(EXIT_CODES) == len(FAMILY) + 5


def test_readme_has_every_kernel_of_the_lab() -> None:
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


def test_relative_links_lead_somewhere() -> None:
    dead = [
        f"{document.name}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert dead == []


def commands_of(text: str) -> Iterator[list[str]]:
    """The arguments of every ``fserr-bpf`` in code, but for grammar and mere names."""
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    lines = blocks.replace("\\\n", "").splitlines()
    lines += re.findall(r"^ {4}(.*)", text, re.MULTILINE)
    lines += re.findall(r"`(fserr-bpf [^`\n]+)`", text)
    for line in lines:
        for command in re.findall(r"(?:^|sudo |bin/|\| )fserr-bpf ([a-z][^#|>]*)", line):
            words = shlex.split(command)
            if len(words) > 1 and not re.search(r"\[|\.\.\.$|\.\.\. ", command):
                yield words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_understood(document: Path) -> None:
    for words in commands_of(document.read_text()):
        cli.parser().parse_args(words)


def test_some_commands_are_found() -> None:
    found = [words[0] for d in DOCUMENTS for words in commands_of(d.read_text())]
    assert {"run", "exec", "watch-files", "top", "symbolize", "compare"} <= {*found}
    assert len(found) > 15


def test_readme_lists_every_document_once() -> None:
    """As a link of its index, so that nothing in docs/ is found by chance only."""
    _, index = text_of("README.md").split("\n## Documents\n")
    listed = re.findall(r"^\| \[([^]]+)\]\(docs/([^)]+)\) \| ", index, re.MULTILINE)
    assert all(name == target for name, target in listed)
    documents = [path.name for path in (ROOT / "docs").iterdir()]
    assert sorted(name for name, _ in listed) == sorted(documents)


def test_readme_shows_events_as_they_are_printed() -> None:
    """Three events, folded at 100 columns, in the form of the text format."""
    (block,) = re.findall(r"```\n(\d\d:.*?)```", text_of("README.md"), re.DOTALL)
    assert max(map(len, block.splitlines())) <= 100
    events = re.sub(r"\n {4}", " ", block).splitlines()
    assert len(events) == 3
    for event in events:
        found = re.fullmatch(
            r"[\d:]{8}\.\d{6} (\w+) +(\S+) +(\w+) (\d+) +x\d+ +"
            r"(?:superblock|ino \d+ gen \d+) +[\w/:]+\[\d+\] +(\w+)(?::\d+)? kprobe:\w+",
            event,
        )
        assert found is not None, event
        assert errno_name(int(found[4])) == found[3]


def test_named_files_exist() -> None:
    """Paths in backquotes, from the top or from a package; but for those of the kernel."""
    packages = ("", "fserr_bpf", "compare/fserr_bpf_compare", "bpf")
    path = r"`([\w.-]+(?:/[\w.-]+)*/(?:[\w-]+\.(?:py|c|h|toml|md|patch))?)`"
    named = [(d, name) for d in DOCUMENTS for name in re.findall(path, d.read_text())]
    assert len(named) > 40
    missing = [
        f"{document.name}: {name}"
        for document, name in named
        if not name.startswith(("fs/", "include/"))
        and not any((ROOT / package / name).exists() for package in packages)
    ]
    assert missing == []


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
