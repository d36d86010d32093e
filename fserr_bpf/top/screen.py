"""The terminal: taken over on the way in, given back on the way out, whatever happens."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from fserr_bpf.closing import Closing
from fserr_bpf.errors import OutputError

# ECMA-48 and xterm's private modes, which every terminal but a dumb one knows
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # other screen, no cursor, no wrapping
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_CLEAR = "\x1b[H\x1b[2J"
_AT_LINE = "\x1b[{};1H\x1b[2K"
_LOCAL = 3  # index of c_lflag in what tcgetattr(3) gives
_KEYS = 64


class Screen(Closing):
    """Draws lines and reads keys, Ctrl-C among them: no signal can cut the way out short.

    A dumb terminal gets each drawing below the one before. Standard input and output must be
    terminals. Raises OutputError when they go away.
    """

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._console = Console(highlight=False)
        self.dumb = self._console.is_dumb_terminal
        self._drawn: list[str] = []
        self._size = (0, 0)
        self._before = termios.tcgetattr(self._input)
        quiet = termios.tcgetattr(self._input)
        quiet[_LOCAL] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
        termios.tcsetattr(self._input, termios.TCSADRAIN, quiet)
        try:
            self._write("" if self.dumb else _ENTER)
        except BaseException:
            self._give_back()
            raise

    def close(self) -> None:
        """Give the terminal back as it was; unread keys are discarded."""
        try:
            self._write("" if self.dumb else _LEAVE)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        termios.tcsetattr(self._input, termios.TCSAFLUSH, self._before)

    def fileno(self) -> int:
        """Readable when keys were pressed."""
        return self._input

    def keys(self) -> str:
        """The keys that were pressed; Ctrl-C and the end of the input are keys too.

        Raises OutputError when the terminal has gone.
        """
        try:
            pressed = os.read(self._input, _KEYS)
        except OSError as error:
            raise OutputError(
                f"the terminal has gone: {error.strerror}", "start top in another terminal"
            ) from error
        return pressed.decode("ascii", "replace") or "\x04"

    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        columns, lines = os.get_terminal_size(self._output)
        return columns or 80, lines or 24  # a serial line may not know

    def draw(self, lines: Sequence[Text], size: tuple[int, int]) -> None:
        """Show ``lines``, made for ``size``, of which only the changed ones are written."""
        drawn = [_escapes(self._console, line) for line in lines]
        if self.dumb:
            self._write("".join(f"{line}\n" for line in drawn if line) + "\n")
            return
        whole = size != self._size
        self._size = size
        self._write(
            (_CLEAR if whole else "")
            + "".join(
                _AT_LINE.format(number) + line
                for number, line in enumerate(drawn, 1)
                if whole or line != self._drawn[number - 1]
            )
        )
        self._drawn = drawn

    def _write(self, words: str) -> None:
        view = memoryview(words.encode(sys.stdout.encoding, "replace"))
        try:
            while view:
                view = view[os.write(self._output, view) :]
        except OSError as error:
            raise OutputError(
                f"cannot write to the terminal: {error.strerror}", "use another terminal"
            ) from error


def print_lines(make: Callable[[int], Sequence[Text]]) -> None:
    """Print what ``make`` gives for the width of standard output, 80 if it has none."""
    console = Console(highlight=False)
    words = "".join(f"{_escapes(console, line)}\n" for line in make(console.width))
    sys.stdout.buffer.write(words.encode(sys.stdout.encoding, "replace"))


def _escapes(console: Console, line: Text) -> str:
    """``line`` with as much colour as the terminal has."""
    with console.capture() as capture:
        console.print(line, end="", no_wrap=True, crop=False, overflow="ignore")
    return capture.get()
