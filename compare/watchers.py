"""``fserr-bpf run`` as processes, and a real group, read together by one thread."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import LabError
from fserr_bpf.live.fanotify import FanotifyGroup
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.unpack import MsgpackDecoder

_ARM_TIMEOUT = 180.0  # seconds; under emulation it takes some 20 on an idle machine
_END_TIMEOUT = 60.0  # seconds
_READ_SIZE = 65536
_ARMED = re.compile(rb"^fserr-bpf: watching .*\n", re.MULTILINE)


class Watcher:
    """A running ``fserr-bpf run``; ``words`` is its command line for people."""

    def __init__(self, process: subprocess.Popen[bytes], words: str) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.words = words
        self._process = process
        self._stdout = process.stdout.fileno()
        self._stderr = process.stderr.fileno()
        self._said = b""

    def fileno(self) -> int:
        """Readable when its stream goes on, or has ended."""
        return self._stdout

    def wait_until_armed(self) -> None:
        """Wait for its word that the probes are attached; LabError if it does not come."""
        deadline = time.monotonic() + _ARM_TIMEOUT
        poll = select.poll()
        poll.register(self._stderr, select.POLLIN)
        while not _ARMED.search(self._said):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise LabError(f"{self.words}: not armed within {_ARM_TIMEOUT:g} s")
            piece = os.read(self._stderr, _READ_SIZE)
            if not piece:
                raise self._ended()
            self._said += piece

    def read(self) -> bytes:
        """What is there of its stream; LabError if it has ended by itself."""
        data = os.read(self._stdout, _READ_SIZE)
        if not data:
            _, said = self._process.communicate()
            self._said += said
            raise self._ended()
        return data

    def stop(self) -> tuple[bytes, str]:
        """End it as Ctrl-C would; returns the rest of its stream and its last words."""
        self._process.terminate()
        try:
            rest, said = self._process.communicate(timeout=_END_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.words}: did not end within {_END_TIMEOUT:g} s") from error
        self._said += said
        if self._process.returncode != 0:
            raise self._ended()
        return rest, self._last_words()

    def _last_words(self) -> str:
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("fserr-bpf: ") if lines else "no message"

    def _ended(self) -> LabError:
        return LabError(f"{self.words} ended: {self._last_words()}")


@contextmanager
def watching(stream: Stream, form: str, *paths: str) -> Iterator[Watcher]:
    """Start ``fserr-bpf run`` on ``paths``; its probes are attached when this yields."""
    arguments = ("run", "--stream", stream, "--format", form, *paths)
    program = Path(sys.executable).with_name("fserr-bpf")
    if not program.exists():
        raise LabError(f"{program} is missing", "make install")
    process = subprocess.Popen(
        [program, *arguments],
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us to handle
    )
    with process:
        try:
            watcher = Watcher(process, shlex.join(("fserr-bpf", *arguments)))
            watcher.wait_until_armed()
            yield watcher
        finally:
            if process.poll() is None:
                # with its loader, which otherwise would compile to the end
                os.killpg(process.pid, signal.SIGKILL)


class Streams:
    """Our two streams and the kernel's, of the same errors.

    ``ours`` and ``kernels`` are the bytes so far of the stream ``native`` (--format raw)
    and of the real group; the stream ``proposed`` (--format msgpack) comes as events.
    """

    def __init__(self, native: Watcher, proposed: Watcher, group: FanotifyGroup) -> None:
        self.ours = b""
        self.kernels = b""
        self._native = native
        self._proposed = proposed
        self._group = group
        self._decoder = MsgpackDecoder()

    def read(self, timeout: float) -> list[Event]:
        """Read what comes within ``timeout`` seconds, at the first sign of anything."""
        poll = select.poll()
        for source in (self._native, self._proposed, self._group):
            poll.register(source, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(timeout * 1000)}
        if self._group.fileno() in ready:
            self.kernels += self._group.read()
        if self._native.fileno() in ready:
            self.ours += self._native.read()
        if self._proposed.fileno() in ready:
            return list(self._decoder.feed(self._proposed.read()))
        return []

    def counts(self) -> tuple[int, int]:
        """Errors in ``ours`` and in ``kernels``, merged ones included."""
        return _errors(self.ours), _errors(self.kernels)

    def finish(self) -> tuple[list[Event], dict[str, str]]:
        """End both of ours and read all three to the end.

        Returns the last events, and what each command said of its losses.
        """
        rest, native_words = self._native.stop()
        self.ours += rest
        rest, proposed_words = self._proposed.stop()
        while data := self._group.read():
            self.kernels += data
        words = {self._native.words: native_words, self._proposed.words: proposed_words}
        return list(self._decoder.feed(rest)), words


def _errors(stream: bytes) -> int:
    events = Decoder().feed(stream)
    return sum(event.error_count for event in events if isinstance(event, FsErrorEvent))
