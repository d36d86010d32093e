"""Who may import whom: the tables of the documents, held against every import.

`RULE` has the units of docs/architecture.md, `ROOMS` the folders inside of the largest units.

Imports are read with ast, those inside functions too. A module name in a string
counts as an import of it: that is how the package imports on demand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# In dependency order: a unit may import itself and what its line names, which is above it.
RULE: dict[str, tuple[str, ...]] = {
    "errors": (),
    "closing": (),
    "children": ("closing",),
    "uapi": (),
    "model": ("errors", "uapi"),
    "codec": ("errors", "uapi", "model"),
    "kernel": ("errors", "closing", "uapi", "model"),
    "tasks": ("errors", "closing", "uapi", "kernel"),
    "probes": ("errors", "closing", "children", "uapi", "model", "kernel"),
    "outputs": ("errors", "closing", "uapi", "model", "codec"),
    "hooks": ("errors", "closing", "children"),
    "symbolize": ("closing", "children", "model"),
    "state": ("errors", "closing", "children", "uapi", "model", "kernel"),
    "doctor": ("errors", "uapi", "model", "kernel", "probes", "state"),
    "marks": ("errors", "uapi", "model", "codec", "kernel"),
    "helper": ("closing", "children", "uapi", "model", "codec", "kernel", "marks"),
    "names": ("children", "uapi", "model", "kernel", "marks", "helper", "symbolize"),
    "group": (
        *("errors", "closing", "uapi", "model", "codec", "kernel", "tasks", "probes"),
        *("marks", "helper", "names"),
    ),
    "monitor": (
        *("errors", "closing", "uapi", "model", "codec", "kernel", "probes"),
        *("state", "marks", "helper", "names", "group"),
    ),
    "service": ("errors", "closing", "uapi", "model", "outputs", "hooks", "group"),
    "watchfiles": (
        *("errors", "closing", "uapi", "model", "codec", "kernel", "probes"),
        *("outputs", "hooks", "marks", "helper", "names", "group"),
    ),
    "exec": (
        *("errors", "closing", "children", "uapi", "model", "codec", "kernel", "tasks"),
        *("probes", "outputs", "marks", "group"),
    ),
    "top": ("errors", "closing", "uapi", "model", "outputs", "symbolize"),
    "fserr_bpf": ("model", "monitor"),
    "fserr_bpf_compare": (
        *("errors", "closing", "children", "uapi", "model", "codec", "kernel", "tasks", "probes"),
        *("outputs", "symbolize", "marks", "group", "monitor", "fserr_bpf"),
    ),
    "cli": (
        *("errors", "closing", "uapi", "model", "codec", "kernel", "tasks", "probes"),
        *("outputs", "hooks", "symbolize", "state", "doctor", "marks", "group", "monitor"),
        *("service", "watchfiles", "exec", "top", "fserr_bpf"),
    ),
}
# Three commands of the package have parts of compare, which nobody else should pay for.
LAZILY = {
    ("fserr_bpf.cli.lab", "fserr_bpf_compare"),
    ("fserr_bpf.cli.compare", "fserr_bpf_compare"),
    ("fserr_bpf.cli.doctor", "fserr_bpf_compare"),
}
# Inside of a large unit, in dependency order too: the package, the document with the same
# table, and the rule for its rooms (folders, and modules beside them).
ROOMS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "fserr_bpf_compare": (
        "docs/compare.md",
        {
            "signals_blocked": (),
            "ready": (),
            "faults": ("signals_blocked",),
            "machines": ("signals_blocked",),
            "images": ("signals_blocked", "machines"),
            "scenarios": ("faults",),
            "selftest": ("signals_blocked", "faults"),
            "verdict": (),
            "harness": (
                *("signals_blocked", "faults", "machines", "images", "scenarios", "verdict"),
            ),
            "report": ("scenarios", "verdict"),
            "bench": ("ready", "faults", "machines"),
            "demo": ("ready", "faults", "machines", "report"),
            "corpus": ("machines",),
            "command": ("images", "scenarios", "verdict", "harness", "report"),
        },
    ),
    "fserr_bpf.exec": (
        "docs/architecture.md",
        {
            "channel": (),
            "clientpids": (),
            "clientqueue": (),
            "fanotifycalls": (),
            "limits": (),
            "lines": (),
            "loop": (),
            "guardian": ("lines", "loop"),
            "markrequest": (),
            "report": ("fanotifycalls", "lines"),
            "shadow": ("fanotifycalls", "limits"),
            "pipe": ("channel", "loop"),
            "nommap": (),
            "fuse": ("loop", "nommap"),
            "exact": ("channel", "fuse"),
            "group": ("channel", "clientqueue", "fanotifycalls", "markrequest", "shadow"),
            "making": (
                *("channel", "clientpids", "clientqueue", "fanotifycalls", "limits", "shadow"),
                "group",
            ),
            "adoption": ("loop", "group"),
            "markobject": ("markrequest", "shadow"),
            "workers": ("loop", "markrequest"),
            "markcall": ("fanotifycalls", "markrequest", "shadow", "group", "workers"),
            "supervisor": (
                *("fanotifycalls", "loop", "markrequest", "report", "group", "making"),
                *("adoption", "workers", "markcall"),
            ),
            "serve": (
                *("channel", "guardian", "lines", "loop", "report", "pipe", "fuse", "exact"),
                *("making", "markobject", "workers", "supervisor"),
            ),
            "fork": ("fanotifycalls", "guardian", "limits", "lines"),
        },
    ),
}
# What only these units of the package may know about.
OUTSIDE: dict[str, set[str]] = {
    "bcc": {"probes"},
    "ctypes": {"kernel", "tasks", "probes"},
    "msgpack": {"outputs"},
    "rich": {"top"},
    "prometheus_client": {"service"},
    "elftools": {"symbolize"},
}

_MODULE_NAME = re.compile(r"(fserr_bpf|fserr_bpf_compare|tests)(\.\w+)+")


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


def room(module: str, package: str) -> str | None:
    """The name in the table of ``package`` that ``module`` belongs to; None outside of it."""
    if not module.startswith(f"{package}."):
        return None
    return module.removeprefix(f"{package}.").partition(".")[0]


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in (ROOT / "fserr_bpf", ROOT / "compare/fserr_bpf_compare"):
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
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


@cache
def imports() -> list[Import]:
    return list(_imports())


def _imports() -> Iterator[Import]:
    for importer, tree in modules():
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        lazy = {id(inner) for function in functions for inner in ast.walk(function)}
        for node in ast.walk(tree):
            for imported in names_imported(node):
                yield Import(importer, imported, id(node) in lazy)


def test_every_module_is_in_the_table() -> None:
    stray = {name for name, _ in modules() if unit(name) == "fserr_bpf"}
    assert stray == {"fserr_bpf"}


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_is_in_its_table(package: str) -> None:
    rooms = {room(name, package) for name, _ in modules()} - {None}
    assert rooms == ROOMS[package][1].keys()


@pytest.mark.parametrize("rule", [RULE, *(rule for _, rule in ROOMS.values())])
def test_nothing_points_back_up(rule: dict[str, tuple[str, ...]]) -> None:
    units = list(rule)
    for name, allowed in rule.items():
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


@pytest.mark.parametrize("package", ROOMS)
def test_imports_between_rooms_follow_the_rule(package: str) -> None:
    _, rule = ROOMS[package]
    between: dict[str, set[str]] = {}
    broken = []
    for i in imports():
        importer, imported = room(i.importer, package), room(i.imported, package)
        if importer is None or imported is None or importer == imported:
            continue
        between.setdefault(importer, set()).add(imported)
        if imported not in rule[importer]:
            broken.append(str(i))
    assert broken == []
    # what a line allows and nobody needs would hide the next arrow
    assert between == {name: set(allowed) for name, allowed in rule.items() if allowed}


@pytest.mark.parametrize(("importer", "imported"), sorted(LAZILY))
def test_exceptions_are_needed_and_lazy(importer: str, imported: str) -> None:
    found = [i for i in imports() if i.importer == importer and unit(i.imported) == imported]
    assert found
    assert all(i.lazily for i in found)


@pytest.mark.parametrize(("package", "owners"), OUTSIDE.items())
def test_outside_packages_have_their_owners(package: str, owners: set[str]) -> None:
    importers = {
        unit(i.importer)
        for i in imports()
        if i.imported.split(".")[0] == package and i.importer.startswith("fserr_bpf.")
    }
    assert importers <= owners


@pytest.mark.parametrize(("document", "rule"), [("docs/architecture.md", RULE), *ROOMS.values()])
def test_the_document_has_the_same_table(document: str, rule: dict[str, tuple[str, ...]]) -> None:
    """One of its tables: a line is ``| `name` | `imports` ... | purpose |``."""
    text = (ROOT / document).read_text()
    tables = re.findall(r"(?:^\| `\w+` \|.*?\| .* \|\n)+", text, re.MULTILINE)
    found = [
        [
            (name, tuple(re.findall(r"`(\w+)`", allowed)))
            for name, allowed in re.findall(r"^\| `(\w+)` \|(.*?)\|", table, re.MULTILINE)
        ]
        for table in tables
    ]
    assert list(rule.items()) in found
