"""``make mutants``: every mutant of the pure modules is killed by a test, or listed with a reason.

mutmut makes the mutants and runs the tests (pyproject.toml says which). ``tests/mutants.toml``
lists those that survive: the function, the lines that differ, and why no test can tell. A
survivor that is not listed fails the command, and so does a listed one that is gone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_suffix(".toml")
DEAD = {"killed", "timeout", "segfault"}
# pkg.module.xǁClassǁmethod__mutmut_7 or pkg.module.x_function__mutmut_7
_NAME = re.compile(r"(?P<module>.*)\.x(?:_|ǁ)(?P<function>.*)__mutmut_\d+")


class Mutant(NamedTuple):
    """A function and the lines of it that were replaced, without indentation."""

    function: str
    old: str
    new: str


def mutmut(*arguments: str) -> str:
    """What a command of mutmut prints."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def survivors(only: Iterable[str]) -> tuple[Counter[Mutant], set[str], int]:
    """Those that no test has noticed, the modules that were mutated, and how many mutants."""
    patterns = [f"{module}.*" for module in only]
    command = [sys.executable, "-m", "mutmut", "run", *patterns]
    subprocess.run(command, check=True)
    alive, modules, made = Counter[Mutant](), set[str](), 0
    for line in mutmut("results", "--all", "true").splitlines():
        name, _, status = line.strip().rpartition(": ")
        found = _NAME.fullmatch(name)
        if not found or status == "not checked":
            continue
        made += 1
        modules.add(found["module"])
        if status not in DEAD:
            alive[_mutant(found, mutmut("show", name))] += 1
    return alive, modules, made


def _mutant(name: re.Match[str], diff: str) -> Mutant:
    lines = diff.partition("\n@@")[2].splitlines()[1:]  # behind the header of the diff
    old, new = (
        "\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return Mutant(f"{name['module']}.{name['function'].replace('ǁ', '.')}", old, new)


def listed() -> dict[Mutant, str]:
    """The survivors of the list and why nobody can tell them from the original."""
    entries = tomllib.loads(LIST.read_text())["survivor"]
    return {Mutant(e["function"], e["old"], e["new"]): e["reason"] for e in entries}


def main() -> int:
    """0 if the survivors are those of the list."""
    parser = argparse.ArgumentParser(prog="make mutants", description=main.__doc__)
    parser.add_argument("module", nargs="*", help="as fserr_bpf.group.streams; default: all")
    shutil.rmtree("mutants", ignore_errors=True)
    alive, modules, made = survivors(parser.parse_args().module)
    known = {m: reason for m, reason in listed().items() if _module(m) in modules}
    for title, mutants in (
        ("survives, but is not listed", alive.keys() - known.keys()),
        ("is listed, but does not survive", known.keys() - alive.keys()),
    ):
        for mutant in sorted(mutants):
            print(f"{mutant.function} {title}:\n- {mutant.old}\n+ {mutant.new}")
    print(f"{made} mutants, {alive.total()} survive, {len(known)} are listed in {LIST.name}")
    return int(alive.keys() != known.keys())


def _module(mutant: Mutant) -> str:
    parts = mutant.function.split(".")
    return ".".join(parts[:3])


if __name__ == "__main__":
    sys.exit(main())
