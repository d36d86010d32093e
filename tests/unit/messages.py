"""Every text that the program shows to people, collected from the source with ast."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fserr_bpf import errors
from fserr_bpf.errors import FserrError

ROOT = Path(__file__).parents[2]
FOLDERS = ("fserr_bpf", "compare")
FAMILY = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, FserrError)
}
VALUE = "\N{HORIZONTAL ELLIPSIS}"
"""Stands for what is known only when the program runs."""
_SAID = ("say", "_say")
_LISTS = ("news", "_news", "notes", "_notes")
_PARSER = ("description", "help")


class Message(NamedTuple):
    """``kind`` is "cause", "remedy", "note" or "help"; ``error`` the class of the first two."""

    place: str
    kind: str
    text: str
    error: str = ""


def messages() -> Iterator[Message]:
    """All of them, in the order of the files."""
    for path, tree in _files():
        yield from collect(path, tree)


def errors_without_remedy() -> Iterator[tuple[str, str]]:
    """Place and class of each error that is made with a cause alone."""
    for path, tree in _files():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in FAMILY:
                starred = any(isinstance(argument, ast.Starred) for argument in node.args)
                if len(node.args) + len(node.keywords) < 2 and not starred:
                    yield _place(path, node), _name(node.func)


def collect(path: Path, tree: ast.Module) -> Iterator[Message]:
    """Those of one file."""
    constants = _constants(tree)
    for node in ast.walk(tree):
        for kind, error, value in _texts(node):
            for text in _templates(value, constants):
                if text.strip(VALUE):
                    yield Message(_place(path, node), kind, text, error)


def _files() -> Iterator[tuple[Path, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def _place(path: Path, node: ast.AST) -> str:
    return f"{path}:{getattr(node, 'lineno', 0)}"


def _texts(node: ast.AST) -> Iterator[tuple[str, str, ast.expr]]:
    """Kind, class and expression of what ``node`` shows."""
    if isinstance(node, ast.AugAssign) and _name(node.target) in _LISTS:
        lists = [part for part in ast.walk(node.value) if isinstance(part, ast.List)]
        yield from (("note", "", element) for part in lists for element in part.elts)
    if not isinstance(node, ast.Call):
        return
    name = _name(node.func)
    if name == "DecodeError":
        yield from (("cause", name, value) for value in node.args[1:])
    elif name in FAMILY:
        kinds = ("cause", "remedy")
        yield from ((kind, name, v) for kind, v in zip(kinds, node.args, strict=False))
        yield from ((str(k.arg), name, k.value) for k in node.keywords)
    elif name in _SAID or (name == "print" and any(_is_stderr(k) for k in node.keywords)):
        yield from (("note", "", value) for value in node.args)
    elif name == "append" and isinstance(node.func, ast.Attribute):
        if _name(node.func.value) in _LISTS:
            yield from (("note", "", value) for value in node.args)
    elif name in ("add_argument", "add_parser", "ArgumentParser"):
        yield from (("help", "", k.value) for k in node.keywords if k.arg in _PARSER)


def _is_stderr(keyword: ast.keyword) -> bool:
    return keyword.arg == "file" and _name(keyword.value) == "stderr"


def _name(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that are given one text at the top of a file."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            names = getattr(node.targets[0], "elts", [])
            found.update(zip(map(_name, names), node.value.elts, strict=False))
    return found


def _templates(node: ast.expr, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """What ``node`` may be, with VALUE for its parts that are not written here."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            next(_templates(part, constants)) if isinstance(part, ast.Constant) else VALUE
            for part in node.values
        )
    elif isinstance(node, ast.IfExp):
        yield from _templates(node.body, constants)
        yield from _templates(node.orelse, constants)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _templates(value, constants)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        for left in _templates(node.left, constants):
            yield from (left + right for right in _templates(node.right, constants))
    elif isinstance(node, ast.Name) and node.id in constants:
        yield from _templates(constants[node.id], {})
    else:
        yield VALUE
