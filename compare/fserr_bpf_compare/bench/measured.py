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
from fserr_bpf.kernel.mounts import MountWatch
from fserr_bpf.model.event import Event
from fserr_bpf_compare.ready import Ready

_ATTACH_TIMEOUT = 180.0  # seconds; an emulated machine takes some 15
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
    """The statistics that the command printed at its end, in errors."""

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

    ``started`` is the time in seconds from exec to its ready signal.
    """

    def __init__(self, process: subprocess.Popen[bytes], output: Path, ready: Ready) -> None:
        begin = time.monotonic()
        self._process = process
        self._output = output
        self._wait_until_attached(ready)
        self.started = time.monotonic() - begin

    def _wait_until_attached(self, ready: Ready) -> None:
        try:
            attached = ready.wait(_ATTACH_TIMEOUT)
        except TimeoutError:
            words = f"fserr-bpf run did not attach its probes within {_ATTACH_TIMEOUT:g} s"
            raise LabError(words) from None
        if not attached:
            _, messages = self._process.communicate()
            raise LabError(f"fserr-bpf run ended: {messages.decode(errors='replace')}")

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of memory by a field of /proc/PID/status; VmHWM is the highest VmRSS."""
        return _status(self._process.pid, field) * 1024

    def share_of_memory(self) -> int:
        """Bytes of memory in which what is shared counts in part (PSS)."""
        return _number(Path(f"/proc/{self._process.pid}/smaps_rollup"), "Pss") * 1024

    def cpu(self) -> float:
        """Seconds of CPU time so far, in user and kernel mode, without the compiler."""
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
        _, messages = self._process.communicate(timeout=_END_TIMEOUT)
        lines = messages.decode(errors="replace").splitlines()
        decoder = Decoder()
        events = list(decoder.feed(self._output.read_bytes()))
        decoder.close()
        return events, Counts.parse(lines[-1])


@contextmanager
def measured(path: Path, output: Path, cache: Path | None = None) -> Iterator[Measured]:
    """Start ``fserr-bpf run`` on ``path``; ends it if it still runs at the end.

    ``cache``: the folder for compiled programs, the host's own by default.
    """
    program = Path(sys.executable).with_name("fserr-bpf")
    command = [str(program), "run", "--format", "raw", "--output", str(output), str(path)]
    with (
        Ready() as ready,
        subprocess.Popen(
            [*command, *ready.options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=ready.pass_fds,
            env={**os.environ, **({"CACHE_DIRECTORY": str(cache)} if cache else {})},
        ) as process,
    ):
        try:
            yield Measured(process, output, ready)
        finally:
            if process.poll() is None:
                process.kill()


def _status(pid: int, field: str) -> int:
    return _number(Path(f"/proc/{pid}/status"), field)


def _number(file: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+)", file.read_text(), re.MULTILINE)
    if not found:
        raise LabError(f"{file} has no {field}")
    return int(found[1])
