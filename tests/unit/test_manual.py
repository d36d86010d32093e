"""The manual page names every command with exactly the options that its grammar has."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf import cli

MANUAL = (Path(__file__).parents[2] / "docs/fserr-bpf.8.md").read_text()


def commands(parser: argparse.ArgumentParser, words: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each command, as ``lab run``, with its arguments as the manual writes them."""
    children = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in children:
        for name, child in action.choices.items():
            yield from commands(child, f"{words} {name}".strip())
    if not children:
        yield words, {_written(a) for a in parser._actions if a.dest != "help"}


def _written(action: argparse.Action) -> str:
    """``--option VALUE``, with `` ...`` if it takes several values at once."""
    names = action.metavar or "|".join(sorted(map(str, action.choices or ())))
    value = " ".join(names) if isinstance(names, tuple) else names
    more = " ..." if action.nargs == "+" and action.option_strings else ""
    return " ".join([*action.option_strings[-1:], *([value] if value else [])]) + more


COMMANDS = dict(commands(cli.parser()))


def options_of(arguments: set[str]) -> set[str]:
    return {argument.split()[0] for argument in arguments if argument.startswith("--")}


def synopsis() -> dict[str, str]:
    """The words of each command in SYNOPSIS, its own options and arguments."""
    (block,) = re.findall(r"^## SYNOPSIS\n\n(.*?)\n\n## ", MANUAL, re.DOTALL | re.MULTILINE)
    lines = re.sub(r"\n {8,}", " ", block).splitlines()
    found = {}
    for line in lines:
        words = re.sub(r"^ +fserr-bpf (\[--debug\] )?", "", line)
        command = max((c for c in COMMANDS if f"{words} ".startswith(f"{c} ")), key=len, default="")
        found[command] = words.removeprefix(command)
    assert len(found) == len(lines)
    return found


def section(command: str) -> str:
    """The text below ``### COMMAND``."""
    (text,) = re.findall(
        rf"^### {re.escape(command)}\n(.*?)(?=^##)", MANUAL, re.DOTALL | re.MULTILINE
    )
    return str(text)


def terms(text: str) -> Iterator[str]:
    """What a definition list defines, without backquotes; choices in order."""
    for line in re.findall(r"^(.+)\n: ", text, re.MULTILINE):
        for term in line.replace("`", "").split(", "):
            option, _, value = term.partition(" ")
            choices = sorted(value.split("|"))
            yield f"{option} {'|'.join(choices)}" if len(choices) > 1 else term


def test_every_command_is_in_the_synopsis() -> None:
    assert synopsis().keys() == {*COMMANDS, ""}


@pytest.mark.parametrize("command", COMMANDS)
def test_synopsis_has_the_options_of_the_command(command: str) -> None:
    named = re.findall(r"--[a-z][a-z-]+", synopsis()[command])
    assert sorted(named) == sorted(options_of(COMMANDS[command]))


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("lab ")])
def test_section_defines_the_options_of_the_command(command: str) -> None:
    defined = [term for term in terms(section(command)) if term.startswith("--")]
    assert sorted(defined) == sorted(a for a in COMMANDS[command] if a.startswith("--"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("lab ")])
def test_section_of_the_lab_defines_each_action(command: str) -> None:
    action = command.removeprefix("lab ")
    (term,) = (t for t in terms(section("lab")) if t.split()[0] == action)
    arguments = {a for a in COMMANDS[command] if a.startswith("--")}
    found = re.findall(r"--[a-z][a-z-]+(?: [A-Z]+)?", term)
    assert sorted(found) == sorted(arguments)


def test_every_option_that_the_text_names_exists() -> None:
    known = {"--debug", "--version", "--help"}.union(*map(options_of, COMMANDS.values()))
    assert set(re.findall(r"--[a-z][a-z-]+", MANUAL)) == known
