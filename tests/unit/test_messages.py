"""Every message of the program: one line with subject and fact, then what to do about it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.messages import FAMILY, Message, collect, errors_without_remedy, messages

MESSAGES = list(messages())
CAUSES = [m for m in MESSAGES if m.kind == "cause"]
REMEDIES = [m for m in MESSAGES if m.kind == "remedy"]
NOTES = [m for m in MESSAGES if m.kind == "note"]
HELP = [m for m in MESSAGES if m.kind == "help"]

# What a remedy begins with: an imperative.
VERBS = frozenset(
    [
        "add",
        "ask",
        "attach",
        "boot",
        "check",
        "create",
        "free",
        "give",
        "install",
        "leave",
        "list",
        "mark",
        "mount",
        "name",
        "raise",
        "redirect",
        "remove",
        "repair",
        "run",
        "start",
        "use",
        "write",
    ]
)
# Metaphors, and words that make a reader look for somebody who speaks or listens.
BANNED = re.compile(
    r"\b(told|tells?|telling|aloud|hears?|heard|listens?|fate|wish(?:es)?|humble|house|stages?|"
    r"bystanders?|armed|arm|arming|somebody|nobody|anybody|dead|dies|dying|has died|rightly|"
    r"silent|last words)\b",
    re.IGNORECASE,
)
# Of these a user can always do something; the others are about data, or about the lab.
WITH_REMEDY = FAMILY.keys() - {"FserrError", "DecodeError", "LabError"}


def offending(found: list[Message], is_bad: Callable[[str], object]) -> list[str]:
    return [f"{m.place}: {m.text}" for m in found if is_bad(m.text)]


def test_messages_are_found() -> None:
    """Of each kind as many as there are at least, so that the collector cannot go blind."""
    kinds = Counter(message.kind for message in MESSAGES)
    assert kinds["cause"] > 80
    assert kinds["remedy"] > 60
    assert kinds["note"] > 20
    assert kinds["help"] > 60
    assert {message.error for message in CAUSES} == FAMILY.keys()


def test_collector_knows_every_way_that_is_used() -> None:
    code = """
A, B = "one", "two"
LONG = "constant"
def f(self, x, y):
    raise UsageError(f"no {x}: {y!r}", "give one" if x else "leave it out")
    raise errors.BccError(A, remedy=B)
    raise DecodeError(0, "bad")
    raise OutputError(LONG)
    self._news.append(f"new {x}")
    self.notes += ["a note"] if x else []
    say(x or LONG)
    print(f"program: {x}", file=sys.stderr, flush=True)
    print("output")
    parser.add_argument("--x", help="what " "it is")
"""
    found = [(m.kind, m.error, m.text) for m in collect(Path("f.py"), ast.parse(code))]
    assert sorted(found) == sorted(
        [
            ("cause", "UsageError", "no …: …"),
            ("remedy", "UsageError", "give one"),
            ("remedy", "UsageError", "leave it out"),
            ("cause", "BccError", "one"),
            ("remedy", "BccError", "two"),
            ("cause", "DecodeError", "bad"),
            ("cause", "OutputError", "constant"),
            ("note", "", "new …"),
            ("note", "", "a note"),
            ("note", "", "constant"),
            ("note", "", "program: …"),
            ("help", "", "what it is"),
        ]
    )


@pytest.mark.parametrize("found", [CAUSES, REMEDIES, NOTES, HELP])
def test_one_line(found: list[Message]) -> None:
    assert (
        offending(found, lambda text: re.search(r"[\n\t]|  ", text) or text != text.strip()) == []
    )


@pytest.mark.parametrize("found", [CAUSES, REMEDIES, NOTES])
def test_no_sentence_of_prose(found: list[Message]) -> None:
    """Two parts are joined by a semicolon in one line: no capital to begin, no period to end."""
    assert offending(found, lambda text: text.endswith((".", "!"))) == []
    assert offending(found, lambda text: re.match(r"[A-Z][a-z]+ ", text)) == []


def test_help_of_an_option_is_no_sentence_but_a_description_is() -> None:
    sentences = [m for m in HELP if re.match(r"[A-Z][a-z]+ ", m.text)]
    assert offending(sentences, lambda text: not text.endswith(".")) == []
    phrases = [m for m in HELP if m not in sentences and not m.text.startswith("FAN_FS_ERROR")]
    assert offending(phrases, lambda text: text.endswith(".")) == []


def test_remedy_is_an_imperative() -> None:
    assert offending(REMEDIES, lambda text: text.split()[0] not in VERBS) == []


def test_no_verb_is_allowed_in_vain() -> None:
    assert {remedy.text.split()[0] for remedy in REMEDIES} >= VERBS


def test_what_a_user_can_mend_has_a_remedy() -> None:
    assert [found for found in errors_without_remedy() if found[1] in WITH_REMEDY] == []


@pytest.mark.parametrize("found", [CAUSES, REMEDIES, NOTES, HELP])
def test_plain_words(found: list[Message]) -> None:
    assert offending(found, BANNED.search) == []
