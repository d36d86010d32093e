"""``fserr-bpf run`` as a process whose start, memory, sleep and arithmetic are measured."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import LabError
from fserr_bpf.live.mounts import MountWatch
from fserr_bpf.model.event import Event

_ARM_TIMEOUT = 180.0  # seconds; an emulated machine takes some 15
_END_TIMEOUT = 60.0
_SETTLE = 0.1
_TRIES = 10
_STATISTICS = re.compile(
    r"(?P<seen>\d+) errors seen = (?P<delivered>\d+) delivered \+ (?P<merged>\d+) merged"
    r"(?: \+ \d+ waiting)? \+ (?P<dropped>\d+) dropped(?: \((?P<stages>.*?)\))?"
    r"; (?P<missed>\d+) missed by probes"
)


@dataclass(frozen=True)
class Counts:
    """What the command said of its losses when it ended, in errors."""

    seen: int
    dropped: int
    ring_full: int
    missed: int

    @classmethod
    def parse(cls, words: str) -> Counts:
        """From its last line; LabError if that is no such line."""
        found = _STATISTICS.search(words)
        if not found:
            raise LabError(f"fserr-bpf run ended without its statistics: {words.strip()!r}")
        full = re.search(r"(\d+) ring full", found["stages"] or "")
        ring_full = int(full[1]) if full else 0
        return cls(int(found["seen"]), int(found["dropped"]), ring_full, int(found["missed"]))


class Measured:
    """A running ``fserr-bpf run``, which appends raw events to a file.

    ``started`` is the time in seconds from exec to the word that it watches.
    """

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        begin = time.monotonic()
        self._process = process
        self._output = output
        self._said = b""
        self._wait_until_armed(begin + _ARM_TIMEOUT)
        self.started = time.monotonic() - begin

    def _wait_until_armed(self, deadline: float) -> None:
        assert self._process.stderr is not None
        poll = select.poll()
        poll.register(self._process.stderr, select.POLLIN)
        while b"fserr-bpf: watching " not in self._said:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise LabError(f"fserr-bpf run: not armed within {_ARM_TIMEOUT:g} s")
            piece = os.read(self._process.stderr.fileno(), 4096)
            if not piece:
                raise LabError(f"fserr-bpf run ended: {self._said.decode(errors='replace')}")
            self._said += piece

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of memory by a field of /proc/PID/status; VmHWM is the highest VmRSS."""
        return _status(self._process.pid, field) * 1024

    def cpu(self) -> float:
        """Seconds of CPU time so far, in user and kernel mode, without the loader."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wake_ups(self, seconds: float) -> int | None:
        """Voluntary context switches in ``seconds`` without mounts and errors.

        It has to wake when a mount changes: with every such change it is tried again.
        None if they do not stop.
        """
        with MountWatch() as mounts:
            poll = select.poll()
            poll.register(mounts.fileno(), select.POLLPRI | select.POLLERR)
            for _ in range(_TRIES):
                before = self._switches()
                while poll.poll(_SETTLE * 1000) or before != self._switches():
                    before = self._switches()
                if not poll.poll(seconds * 1000):
                    return self._switches() - before
        return None

    def _switches(self) -> int:
        return _status(self._process.pid, "voluntary_ctxt_switches")

    def stop(self) -> tuple[list[Event], Counts]:
        """End it as Ctrl-C would; returns all its events and its arithmetic."""
        self._process.terminate()
        _, said = self._process.communicate(timeout=_END_TIMEOUT)
        lines = (self._said + said).decode(errors="replace").splitlines()
        decoder = Decoder()
        events = list(decoder.feed(self._output.read_bytes()))
        decoder.close()
        return events, Counts.parse(lines[-1])


@contextmanager
def measured(path: Path, output: Path) -> Iterator[Measured]:
    """Start ``fserr-bpf run`` on ``path``; ends it if it still runs at the end."""
    program = Path(sys.executable).with_name("fserr-bpf")
    command = [str(program), "run", "--format", "raw", "--output", str(output), str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            yield Measured(process, output)
        finally:
            if process.poll() is None:
                process.kill()


def _status(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s*(\d+)", text, re.MULTILINE)
    if not found:
        raise LabError(f"/proc/{pid}/status has no {field}")
    return int(found[1])
