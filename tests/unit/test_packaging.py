"""The package and its unit: what they say of the command, held against the command."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import fserr_bpf
from fserr_bpf import cli
from tests.unit.test_manual import COMMANDS

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging/systemd/fserr-bpf.service"
MOST_EXPOSED = 3.5


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "packaging/debian/changelog").read_text()
    assert re.match(r"fserr-bpf \((.*)\)", changelog)[1] == project == fserr_bpf.__version__  # type: ignore[index]


def test_unit_runs_a_command_of_ours() -> None:
    (line,) = re.findall(r"^ExecStart=/usr/bin/fserr-bpf (.*)$", UNIT.read_text(), re.MULTILINE)
    arguments = cli.parser().parse_args(shlex.split(line))
    assert (arguments.command, arguments.config) == ("run", "/etc/fserr-bpf/config.toml")


def test_unit_is_as_closed_as_the_document_says() -> None:
    """By systemd's own measure, which other versions of it may give otherwise."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (apt install systemd)")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for fserr-bpf\.service: (\d\.\d)", done.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED
    (version,) = re.findall(r"\Asystemd (\d+)", _systemd())
    document = (ROOT / "docs/service.md").read_text()
    ((said, of),) = re.findall(r"`systemd-analyze security` says (\S+) \(systemd (\d+)\)", document)
    assert (said == found[1]) or of != version


def _systemd() -> str:
    return subprocess.run(
        ["systemd-analyze", "--version"], capture_output=True, text=True, check=True
    ).stdout


def test_each_command_has_a_page_with_its_synopsis() -> None:
    manual = runpy.run_path(str(ROOT / "packaging/manual.py"))
    pages = manual["pages"]((ROOT / "docs/fserr-bpf.8.md").read_text())
    for command in COMMANDS:
        name = f"fserr-bpf-{command.split()[0] if command.startswith('lab ') else command}"
        page = pages[name.replace(" ", "-")]
        assert re.search(rf"^    fserr-bpf (\[--debug\] )?{command}\b", page, re.MULTILINE)
    assert len(pages) == len({c.split()[0] if c.startswith("lab ") else c for c in COMMANDS}) + 1
