"""Starting a child: for much memory, rights or work that may hang, away from who asks.

A child is run as ``python start.py MODULE FD ARGUMENT...``: FD is its end of the channel, see
`channel_to_parent`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import IO, NamedTuple

from fserr_bpf.children.channel import Channel, channel_pair

_START = str(Path(__file__).with_name("start.py"))
PATIENCE_SECONDS = 1.0
"""How long the end of a child is waited for."""


class Child(NamedTuple):
    """A child that was spawned, and our end of the channel to it."""

    process: subprocess.Popen[bytes]
    channel: Channel

    def end(self) -> None:
        """Kill it, close the channel. One that hangs in the kernel is left to it."""
        self.channel.close()
        self.process.kill()
        self.wait(PATIENCE_SECONDS)

    def wait(self, seconds: float) -> None:
        """Let it end by itself, and reap it if it does."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)


def command_of(module: str, *arguments: str) -> list[str]:
    """What runs ``module`` of one of our packages, wherever they are."""
    # -P: the current directory is anybody's, and this may run as root
    return [sys.executable, "-P", _START, module, *arguments]


def spawn(
    module: str,
    *arguments: str,
    output: int | IO[bytes] = subprocess.DEVNULL,
    new_session: bool = False,
) -> Child:
    """Run ``module`` of this package. It has nothing on standard input.

    ``output`` is both its standard output and its standard error. Raises OSError.
    """
    ours, theirs = channel_pair()
    command = command_of(module, str(theirs.fileno()), *arguments)
    with theirs:
        try:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=new_session,
            )
        except BaseException:
            ours.close()
            raise
    return Child(process, ours)
