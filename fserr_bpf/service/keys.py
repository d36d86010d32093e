"""A TOML document that is read key by key: each mistake names its line and its key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fserr_bpf.errors import UsageError

T = TypeVar("T")
_HEADER = re.compile(r"\s*\[(\[?)\s*([\w-]+)\s*\]")


def parse(path: str, text: str) -> Table:
    """The top of a document. Raises UsageError with the line for what is no TOML."""
    try:
        return Table(path, text, "", 0, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        what = re.sub(r" \(at line (\d+), column \d+\)$", "", str(error))
        line = re.search(r"at line (\d+)", str(error))
        place = f"{path}:{line[1]}" if line else path
        raise UsageError(f"{place}: {what}", "repair the TOML") from None


class Table:
    """A table of ``path``: ``name`` "" is the top, ``number`` counts tables of one name.

    What is taken is gone; what is left at the end is unknown.
    """

    def __init__(
        self, path: str, text: str, name: str, number: int, values: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._text = text
        self._name = name
        self._number = number
        self._values = dict(values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def error(self, key: str, what: str, remedy: str) -> UsageError:
        """A mistake at ``key``, with its line."""
        name = f"{self._name}.{key}" if self._name else key
        return UsageError(f"{self._path}:{self._line(key)}: {name} {what}", remedy)

    def _line(self, key: str) -> int:
        """Of ``key`` in this table; of the table's header where the key has no line of its own."""
        table, seen, header = "", -1 if self._name else 0, 1
        pattern = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""")
        for number, line in enumerate(self._text.splitlines(), 1):
            if found := _HEADER.match(line):
                table = found[2]
                seen += table == self._name
                if table == self._name and seen == self._number:
                    header = number
                if not self._name and table == key:
                    return number
            elif table == self._name and seen == self._number and pattern.match(line):
                return number
        return header

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        """The value, or ``default``. Raises UsageError for one of another kind."""
        if key not in self._values:
            return default
        value = self._values.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"is {_toml(value)}, not {_NAMES[kind]}", "correct it")
        return value

    def texts(self, key: str) -> list[str] | None:
        """A list of strings, None without the key."""
        values: list[object] | None = self.take(key, list)
        if values is None:
            return None
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) < len(values):
            raise self.error(key, "has an element that is no string", "quote it")
        return texts

    def convert(self, key: str, function: Callable[[Any], T], value: Any) -> T:
        """What ``function`` makes of ``value``, its ValueError or UsageError at this key's line."""
        try:
            return function(value)
        except UsageError as error:
            raise self.error(key, f"is wrong: {error.cause}", error.remedy) from None
        except ValueError as error:
            raise self.error(key, f"is {_toml(value)}, {error}", "correct it") from None

    def table(self, key: str) -> Table | None:
        """The table ``[key]``."""
        values = self.take(key, dict)
        return None if values is None else Table(self._path, self._text, key, 0, values)

    def tables(self, key: str) -> list[Table]:
        """All ``[[key]]``."""
        values = self.take(key, list, [])
        if not all(isinstance(each, dict) for each in values):
            raise self.error(key, "is no table", f"begin each with [[{key}]]")
        return [Table(self._path, self._text, key, at, each) for at, each in enumerate(values)]

    def finish(self, known: str) -> None:
        """Raises UsageError for a key that nobody has taken; ``known`` are all there are."""
        for key in self._values:
            raise self.error(key, "is no key", f"use one of {known}")


_NAMES = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "a table",
}


def _toml(value: object) -> str:
    """How a value is named in a message: short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value[:60]}"'
    return "a table" if isinstance(value, dict) else str(value)[:60]
