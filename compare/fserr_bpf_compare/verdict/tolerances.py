"""The table of allowed differences, ``tolerances.toml``: read, checked, held against a run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.errors import LabError
from fserr_bpf_compare.verdict.cells import Cell, Difference, Judged, Outcome
from fserr_bpf_compare.verdict.levels import FIELDS

TABLE = Path(__file__).with_name("tolerances.toml")

_COMPARED = (Outcome.SAME, Outcome.DIFFERENT)
_FORMS = {
    "id": r"[a-z0-9-]+",
    "scenario": r"[a-z0-9_*?]+",
    "kernels": r"[\w.+*?-]+",
    "field": "|".join(sorted(FIELDS)),
    "reason": r"\S.*",
    "link": r"https://\S+|[0-9a-f]{12,40}",
}


class Tolerance(NamedTuple):
    """One entry; ``scenario`` and ``kernels`` are patterns with ``*`` and ``?``.

    ``kernels`` are for releases, ``field`` is one of `levels.FIELDS`, ``link`` an
    address or a kernel commit.
    """

    id: str
    scenario: str
    kernels: tuple[str, ...]
    field: str
    reason: str
    link: str

    def covers(self, cell: Cell) -> bool:
        """Whether this entry is about ``cell``."""
        return fnmatchcase(cell.scenario, self.scenario) and any(
            fnmatchcase(cell.release, kernel) for kernel in self.kernels
        )

    def allows(self, cell: Cell, difference: Difference) -> bool:
        """Whether this entry is about ``difference`` of ``cell``."""
        return difference.field == self.field and self.covers(cell)


Tolerances = tuple[Tolerance, ...]


def load(path: Path = TABLE) -> Tolerances:
    """The entries of ``path`` in order; LabError if it is no valid table."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{path.name}: cannot be read: {error}", "repair it") from error
    if unknown := table.keys() - {"tolerance"}:
        raise _invalid(path, f"has the unknown key {min(unknown)!r}", "use [[tolerance]] only")
    entries = table.get("tolerance", [])
    if not isinstance(entries, list):
        raise _invalid(path, "has a [tolerance] that is not a list", "write [[tolerance]]")
    tolerances = tuple(_entry(path, n, entry) for n, entry in enumerate(entries, start=1))
    names = [tolerance.id for tolerance in tolerances]
    if twice := [name for name in names if names.count(name) > 1]:
        raise _invalid(path, f"has the id {twice[0]!r} twice", "give each entry its own")
    return tolerances


def stale(tolerances: Tolerances, judged: Sequence[Judged]) -> tuple[str, ...]:
    """A line for each entry whose cells were compared in this run and agreed without it."""
    compared = [one for one in judged if one.outcome in _COMPARED]
    used = {name for one in compared for name in one.tolerated}
    return tuple(
        f"stale tolerance: {entry.id} was not needed; remove it from {TABLE.name}"
        for entry in tolerances
        if entry.id not in used and any(entry.covers(one.cell) for one in compared)
    )


def _entry(path: Path, number: int, entry: object) -> Tolerance:
    where = f"entry {number}"
    if not isinstance(entry, dict):
        raise _invalid(path, f"{where} is not a table", "write [[tolerance]]")
    where = f"{where} ({entry['id']})" if isinstance(entry.get("id"), str) else where
    if unknown := entry.keys() - _FORMS.keys():
        raise _invalid(path, f"{where} has the unknown key {min(unknown)!r}", "remove it")
    for key, form in _FORMS.items():
        if key not in entry:
            raise _invalid(path, f"{where} has no {key}", f"add {key} = ...")
        values = entry[key] if key == "kernels" else [entry[key]]
        if not isinstance(values, list) or not values:
            raise _invalid(path, f"{where} has no list of kernels", 'write kernels = ["6.1.*"]')
        for value in values:
            if not isinstance(value, str) or not re.fullmatch(form, value):
                raise _invalid(
                    path, f"{where} has {value!r} as {key}", f"write something that matches {form}"
                )
    return Tolerance(**{**entry, "kernels": tuple(entry["kernels"])})


def _invalid(path: Path, what: str, remedy: str) -> LabError:
    return LabError(f"{path.name}: {what}", remedy)
