"""The terminal is given back as it was, also when the view breaks; commands that cannot start."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

pytest.importorskip("rich")

from fserr_bpf.errors import FserrError, UsageError

ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l\x1b[?7l", b"\x1b[?7h\x1b[?25h\x1b[?1049l"
FOREIGN = ("NO_COLOR", "FORCE_COLOR", "COLORTERM")
TOP = "from fserr_bpf.cli import entry; entry()"
DRAW = "from rich.text import Text\nfrom fserr_bpf.top.screen import Screen\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo terminal: what a person sees, what a program has."""
    person, program = pty.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def run_in(terminal: tuple[int, int], code: str, **environment: str) -> tuple[int, bytes, str]:
    """Status, what the terminal got and what standard error got."""
    person, program = terminal
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=program,
        stdout=program,
        stderr=subprocess.PIPE,
        text=True,
        env={**inherited, "TERM": "xterm-256color", **environment},
        check=False,
    )
    os.write(program, b"END\n")
    got = b""
    while not got.endswith(b"END\r\n"):
        got += os.read(person, 4096)
    return done.returncode, got.removesuffix(b"END\r\n"), done.stderr


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise RuntimeError('broken')", 1, "RuntimeError: broken\n"),
    ],
)
def test_terminal_is_given_back(
    terminal: tuple[int, int], end: str, status: int, words: str
) -> None:
    before = termios.tcgetattr(terminal[1])
    taken = "assert not termios.tcgetattr(0)[3] & (termios.ICANON | termios.ISIG | termios.ECHO)"
    code = f"import termios\n{DRAW}with Screen() as s:\n    {taken}\n    {end}\n"
    done, got, said = run_in(terminal, code)
    assert (done, said.splitlines(keepends=True)[-1:]) == (status, [words] if words else [])
    assert got == ENTER + LEAVE
    assert termios.tcgetattr(terminal[1]) == before


def test_only_changed_lines_are_written(terminal: tuple[int, int]) -> None:
    code = (
        f"{DRAW}with Screen() as s:\n"
        "    s.draw([Text('one', 'red'), Text('two')], (80, 24))\n"
        "    s.draw([Text('one', 'red'), Text('three')], (80, 24))\n"
        "    s.draw([Text('one', 'red'), Text('three')], (80, 24))\n"
    )
    _, got, said = run_in(terminal, code)
    assert said == ""
    assert got == (
        ENTER
        + b"\x1b[H\x1b[2J\x1b[1;1H\x1b[2K\x1b[31mone\x1b[0m\x1b[2;1H\x1b[2Ktwo"
        + b"\x1b[2;1H\x1b[2Kthree"
        + LEAVE
    )


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_without_colour(terminal: tuple[int, int], name: str) -> None:
    value = {"NO_COLOR": "1", "TERM": "dumb"}[name]
    lines = "[Text('one', 'red'), Text(), Text('two')]"
    code = f"{DRAW}with Screen() as s:\n    s.draw({lines}, (80, 24))\n"
    _, got, _ = run_in(terminal, code, **{name: value})
    if name == "TERM":
        assert got == b"one\r\ntwo\r\n\r\n"
    else:
        assert b"\x1b[1;1H\x1b[2Kone\x1b[2;1H" in got


def test_names_that_the_terminal_cannot_show_are_replaced(terminal: tuple[int, int]) -> None:
    code = f"{DRAW}with Screen() as s:\n    s.draw([Text('a…b')], (80, 24))\n"
    assert b"a?b" in run_in(terminal, code, PYTHONIOENCODING="latin-1")[1]


def refused(code: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, "top", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_no_terminal_is_refused_before_anything_starts() -> None:
    assert refused(TOP, "/nonexistent") == (
        UsageError.exit_code,
        "fserr-bpf: top needs a terminal; use top --once, or run\n",
    )


def test_json_without_once_is_refused() -> None:
    assert refused(TOP, "--json") == (
        UsageError.exit_code,
        "fserr-bpf: --json needs --once; add --once, or use run --format json\n",
    )


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "86401", "x"])
def test_interval_has_limits(seconds: str) -> None:
    status, said = refused(TOP, "--interval", seconds)
    assert status == UsageError.exit_code
    assert "argument --interval" in said.splitlines()[-1]


def test_without_rich_the_remedy_is_said() -> None:
    code = f"import sys; sys.modules['rich'] = None\n{TOP}"
    assert refused(code, "--once") == (
        FserrError.exit_code,
        "fserr-bpf: top needs rich; "
        "run apt install python3-rich, or pip install 'fserr-bpf[top]'\n",
    )
    # for JSON it is not needed: the next thing that is wrong is said
    assert "/nonexistent" in refused(code, "--once", "--json", "/nonexistent")[1]
