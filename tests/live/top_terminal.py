"""``fserr-bpf top`` in tmux: what a person sees and presses."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.live.conftest import skip, wait_until

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
KEYS_SHOWN = "q quit"
_FOREIGN = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TMUX")
_ENDED = "ended with "
_SET = "echoctl"  # in the last line that stty prints


class Terminal:
    """A terminal of tmux that runs one command and then stays."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *words: str) -> str:
        """What a command of tmux prints."""
        command = ("tmux", "-u", "-S", str(self._socket), "-f", "/dev/null", *words)
        clean = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=clean)
        return done.stdout

    def lines(self, *options: str) -> list[str]:
        """The screen, one text for each line."""
        return self.tmux("capture-pane", "-p", *options).split("\n")[:-1]

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int, title: str) -> list[str]:
        """The screen that is drawn for another size: with ``title`` at its top."""
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))
        seen: list[str] = []

        def is_drawn() -> bool:
            seen[:] = self.lines()
            return len(seen) == lines and title in seen[0] and seen[-1].startswith(KEYS_SHOWN)

        wait_until(is_drawn, f"a screen of {columns}x{lines}")
        return seen

    def wait_for(self, words: str) -> list[str]:
        """The first screen with ``words`` in it."""
        seen: list[str] = []

        def is_shown() -> bool:
            seen[:] = self.lines()
            return words in "\n".join(seen)

        wait_until(is_shown, f"{words!r} on the screen")
        return seen

    @property
    def pid(self) -> int:
        """The process of the command, a child of the shell."""
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        (child,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return int(child)

    def wait_for_end(self) -> tuple[int, str, str]:
        """Exit status, the lines that were left on the screen, and how the terminal is set."""
        screen = "".join(f"{line}\n" for line in self.wait_for(_SET))
        left, _, rest = screen.partition(_ENDED)
        status, _, settings = rest.partition("\n")
        return int(status), left, settings


@contextmanager
def top_in_terminal(
    directory: Path,
    *arguments: str,
    columns: int = 80,
    lines: int = 24,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Terminal]:
    """``fserr-bpf top`` that shows its first screen."""
    if not shutil.which("tmux"):
        skip("tmux is missing", expected=False)
    # a server that is told to go may still hold its socket
    terminal = Terminal(Path(tempfile.mkdtemp(dir=directory)) / "tmux")
    settings = [f"{name}={value}" for name, value in (environment or {}).items()]
    command = shlex.join(["env", *settings, *prefix, COMMAND, "top", *arguments])
    script = f"echo before; {command}; echo {_ENDED}$?; stty -a; exec cat"
    size = ("-x", str(columns), "-y", str(lines))
    terminal.tmux("new-session", "-d", *size, "sh", "-c", script, ";", "set", "status", "off")
    try:
        terminal.wait_for(KEYS_SHOWN)
        yield terminal
    finally:
        terminal.tmux("kill-server")
