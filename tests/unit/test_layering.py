"""Who may import whom: the table of docs/architecture.md, held against every import.

Imports are read with ast, those inside functions too. A module name in a string
counts as an import of it: that is how the package imports on demand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# In dependency order: a unit may import itself and what its line names, which is above it.
RULE: dict[str, tuple[str, ...]] = {
    "errors": (),
    "closing": (),
    "uapi": (),
    "statistics": (),
    "model": ("errors",),
    "codec": ("errors", "uapi", "model"),
    "streams": ("uapi", "model"),
    "details": ("uapi", "model", "codec", "streams"),
    "live": ("errors", "closing", "uapi", "model"),
    "outputs": ("errors", "closing", "uapi", "model", "codec"),
    "visibility": ("errors", "closing", "uapi", "model", "codec", "live"),
    "marks": ("errors", "uapi", "model", "codec", "live", "visibility"),
    "origin": ("uapi", "model", "streams", "marks"),
    "kernelgroup": ("errors", "closing", "uapi", "model", "codec", "live", "marks"),
    "symbolize": ("closing", "model"),
    "names": ("closing", "model", "live", "marks", "symbolize"),
    "errorgroup": (
        *("errors", "uapi", "statistics", "model", "codec", "streams", "details", "live"),
        *("visibility", "marks", "origin", "kernelgroup", "names"),
    ),
    "source": ("closing", "uapi", "model", "codec", "live", "marks", "kernelgroup", "errorgroup"),
    "following": ("errors", "closing", "uapi", "live", "marks", "kernelgroup", "names"),
    "monitor": (
        *("errors", "closing", "uapi", "statistics", "model", "codec", "live", "visibility"),
        *("marks", "names"),
        *("errorgroup", "source", "following"),
    ),
    "watchfiles": (
        *("errors", "closing", "uapi", "model", "codec", "live", "outputs", "marks", "names"),
        *("errorgroup", "source", "following"),
    ),
    "takeover": (
        *("errors", "closing", "uapi", "model", "codec", "live", "outputs", "marks"),
        *("visibility", "kernelgroup", "errorgroup", "source"),
    ),
    "top": ("errors", "closing", "model", "outputs", "symbolize"),
    "fserr_bpf": ("model", "monitor"),
    "compare": (
        *("errors", "closing", "uapi", "statistics", "model", "codec", "live", "outputs"),
        *("symbolize", "monitor"),
    ),
    "cli": (
        *("errors", "uapi", "model", "codec", "live", "outputs", "visibility", "marks"),
        *("symbolize", "monitor", "watchfiles", "takeover", "top", "fserr_bpf"),
    ),
}
# Two commands of the package are parts of compare, which nobody else should pay for.
LAZILY = {("fserr_bpf.cli.lab", "compare"), ("fserr_bpf.cli.compare", "compare")}
# What only one unit of the package may know about.
OUTSIDE = {
    "bcc": "live",
    "ctypes": "live",
    "msgpack": "outputs",
    "rich": "top",
    "elftools": "symbolize",
}

_MODULE_NAME = re.compile(r"(fserr_bpf|compare|tests)(\.\w+)+")


class Import(NamedTuple):
    """``importer`` is a whole module name, ``lazily`` inside a function."""

    importer: str
    imported: str
    lazily: bool

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


def unit(module: str) -> str:
    """The line of the table that ``module`` belongs to; other packages are their own."""
    parts = module.split(".")
    if parts[0] != "fserr_bpf":
        return parts[0]
    return parts[1] if len(parts) > 1 and parts[1] in RULE else "fserr_bpf"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in ("fserr_bpf", "compare"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(path.read_text(), str(path))


def names_imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide the unit"
        # "from fserr_bpf import errors" imports a unit, not the package's front
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if _MODULE_NAME.fullmatch(node.value) else []
    return []


def imports() -> Iterator[Import]:
    for importer, tree in modules():
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        lazy = {id(inner) for function in functions for inner in ast.walk(function)}
        for node in ast.walk(tree):
            for imported in names_imported(node):
                yield Import(importer, imported, id(node) in lazy)


def test_every_module_is_in_the_table() -> None:
    stray = {name for name, _ in modules() if unit(name) == "fserr_bpf"}
    assert stray == {"fserr_bpf"}


def test_nothing_points_back_up() -> None:
    units = list(RULE)
    for name, allowed in RULE.items():
        assert set(allowed) <= set(units[: units.index(name)]), name


def test_imports_follow_the_rule() -> None:
    ours = [i for i in imports() if unit(i.imported) in {*RULE, "tests"}]
    assert len(ours) > 100, "the imports were not found"
    broken = [
        str(i)
        for i in ours
        if unit(i.imported) not in (unit(i.importer), *RULE[unit(i.importer)])
        and (i.importer, unit(i.imported)) not in LAZILY
    ]
    assert broken == []


@pytest.mark.parametrize(("importer", "imported"), sorted(LAZILY))
def test_exceptions_are_needed_and_lazy(importer: str, imported: str) -> None:
    found = [i for i in imports() if i.importer == importer and unit(i.imported) == imported]
    assert found
    assert all(i.lazily for i in found)


@pytest.mark.parametrize(("package", "owner"), OUTSIDE.items())
def test_outside_packages_have_one_owner(package: str, owner: str) -> None:
    importers = {
        unit(i.importer)
        for i in imports()
        if i.imported.split(".")[0] == package and i.importer.startswith("fserr_bpf")
    }
    assert importers <= {owner}


def test_the_document_has_the_same_table() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\| .* \|$", text, re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", allowed)) for name, allowed in rows} == RULE
    assert [name for name, _ in rows] == list(RULE)
