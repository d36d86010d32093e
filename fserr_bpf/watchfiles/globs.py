"""Which paths a glob means: as in bash with globstar and dotglob. No file is looked at to match.

A wildcard matches no slash. ``**`` as a whole component matches any number of components,
at the end at least one. Names that begin with a dot match too: no file is overlooked for
its name. A backslash takes the meaning from the next character.
"""

from __future__ import annotations

import os
import re

from fserr_bpf.errors import UsageError

_PLAIN = re.compile(r"(?:\\.|[^*?\[\\])*\\?", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ANY_NAME = "[^/]+"
_NOTHING = "(?!)"
# of ASCII only, as in the locale C
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\v\f\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


class Glob:
    """A glob that is given by a user.

    ``text`` is what was given, ``prefix`` the components in front of the first wildcard as
    an absolute path; symbolic links in it are resolved now, what does not exist yet is
    taken as it is written. Raises UsageError for a glob that no file can match.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if not text or "\0" in text:
            raise UsageError(f"--glob {text!r} is not a path", "give one such as '/srv/**'")
        absolute = text if text.startswith("/") else f"{_literal(os.getcwd())}/{text}"
        components = [part for part in absolute.split("/") if part not in ("", ".")]
        fixed = next(
            (i for i, part in enumerate(components) if not _PLAIN.fullmatch(part)), len(components)
        )
        rest = components[fixed:]
        if ".." in rest:
            raise UsageError(f"--glob {text!r} has .. behind a wildcard", "write it without")
        plain = "/".join(_ESCAPED.sub(r"\1", part) for part in components[:fixed])
        self.prefix = os.path.realpath(f"/{plain}")
        if not rest and (text.endswith("/") or os.path.isdir(self.prefix)):
            raise UsageError(
                f"--glob {text!r} is a directory",
                f"give {text.rstrip('/') + '/**'!r} for all files below it",
            )
        if text.endswith("/"):
            raise UsageError(f"--glob {text!r} means directories only", "write it without /")
        begin = [re.escape(part) for part in self.prefix.split("/") if part]
        self._pattern = re.compile(_pattern(begin, rest), re.DOTALL)

    def matches(self, path: str) -> bool:
        """Whether ``path``, absolute and without links, is one of those."""
        return self._pattern.fullmatch(path) is not None


def _literal(path: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", path)


def _pattern(begin: list[str], rest: list[str]) -> str:
    pattern = "".join(f"/{part}" for part in begin)
    for index, part in enumerate(rest):
        if part != "**":
            pattern += f"/{_component(part)}"
        elif rest[index + 1 :] in ([], ["**"] * (len(rest) - index - 1)):
            return pattern + f"(?:/{_ANY_NAME})+"
        elif rest[index + 1] != "**":
            pattern += f"(?:/{_ANY_NAME})*"
    return pattern or "/"


def _component(part: str) -> str:
    """One component as a regular expression; a bracket that nothing closes is itself."""
    pattern, at = "", 0
    while at < len(part):
        character = part[at]
        at += 1
        if character == "*":
            if not pattern.endswith("[^/]*"):
                pattern += "[^/]*"
        elif character == "?":
            pattern += "[^/]"
        elif character == "[" and (found := _bracket(part, at)):
            inside, at = found
            pattern += inside
        elif character == "\\" and at < len(part):
            pattern += re.escape(part[at])
            at += 1
        else:
            pattern += re.escape(character)
    return f"(?=[^/]){pattern}"


def _bracket(part: str, at: int) -> tuple[str, int] | None:
    """The set that begins behind a bracket at ``at``, and where it ends; None if it does not."""
    negated = part[at : at + 1] in ("!", "^")
    at += negated
    inside, first = "", True
    while at < len(part) and (first or part[at] != "]"):
        first = False
        if (named := re.compile(r"\[:(\w+):\]").match(part, at)) and named[1] in _CLASSES:
            inside += _CLASSES[named[1]]
            at = named.end()
            continue
        low, at = _member(part, at)
        high = low
        if part[at : at + 1] == "-" and part[at + 1 : at + 2] not in ("", "]"):
            high, at = _member(part, at + 1)
        if low <= high:
            inside += f"{re.escape(low)}-{re.escape(high)}"
    if at >= len(part):
        return None
    if negated:
        return f"[^/{inside}]", at + 1
    return (f"(?!/)[{inside}]" if inside else _NOTHING), at + 1


def _member(part: str, at: int) -> tuple[str, int]:
    if part[at] == "\\" and at + 1 < len(part):
        at += 1
    return part[at], at + 1
