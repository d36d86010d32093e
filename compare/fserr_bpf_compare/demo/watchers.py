"""``fserr-bpf run`` as processes, and a real group, read together by one thread."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import LabError
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.model.event import Event, FsErrorEvent, Lost
from fserr_bpf.model.state import StateChange
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.schema import Message
from fserr_bpf.outputs.unpack import MsgpackDecoder
from fserr_bpf_compare.ready import Ready

_ATTACH_TIMEOUT = 180.0  # seconds; under emulation it takes some 20 on an idle machine
_END_TIMEOUT = 60.0  # seconds
_READ_SIZE = 65536


class Watcher:
    """A running ``fserr-bpf run``; ``words`` is its command line for people."""

    def __init__(self, process: subprocess.Popen[bytes], words: str) -> None:
        assert process.stdout is not None
        self.words = words
        self._process = process
        self._stdout = process.stdout.fileno()
        self._messages = b""

    def fileno(self) -> int:
        """Readable when its stream goes on, or has ended."""
        return self._stdout

    def wait_until_attached(self, ready: Ready) -> None:
        """Wait for its ready signal; LabError if it does not come."""
        try:
            attached = ready.wait(_ATTACH_TIMEOUT)
        except TimeoutError:
            words = f"{self.words}: did not attach its probes within {_ATTACH_TIMEOUT:g} s"
            raise LabError(words) from None
        if not attached:
            _, self._messages = self._process.communicate()
            raise self._ended()

    def read(self) -> bytes:
        """What is there of its stream; LabError if it has ended by itself."""
        data = os.read(self._stdout, _READ_SIZE)
        if not data:
            _, messages = self._process.communicate()
            self._messages += messages
            raise self._ended()
        return data

    def stop(self) -> tuple[bytes, str]:
        """End it as Ctrl-C would; returns the rest of its stream and its last message."""
        self._process.terminate()
        try:
            rest, messages = self._process.communicate(timeout=_END_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.words}: did not end within {_END_TIMEOUT:g} s") from error
        self._messages += messages
        if self._process.returncode != 0:
            raise self._ended()
        return rest, self._last_message()

    def _last_message(self) -> str:
        lines = self._messages.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("fserr-bpf: ") if lines else "no message"

    def _ended(self) -> LabError:
        return LabError(f"{self.words} ended: {self._last_message()}")


@contextmanager
def watching(stream: Stream, form: str, *paths: str) -> Iterator[Watcher]:
    """Start ``fserr-bpf run`` on ``paths``; its probes are attached when this yields."""
    arguments = ("run", "--stream", stream, "--format", form, *paths)
    program = Path(sys.executable).with_name("fserr-bpf")
    if not program.exists():
        raise LabError(f"{program} is missing", "run make install")
    with (
        Ready() as ready,
        subprocess.Popen(
            [program, *arguments, *ready.options],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=ready.pass_fds,
            start_new_session=True,  # Ctrl-C is for us to handle
        ) as process,
    ):
        try:
            watcher = Watcher(process, shlex.join(("fserr-bpf", *arguments)))
            watcher.wait_until_attached(ready)
            yield watcher
        finally:
            if process.poll() is None:
                # with its compiler, which otherwise would compile to the end
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
            return _events(self._decoder.feed(self._proposed.read()))
        return []

    def counts(self) -> tuple[int, int]:
        """Errors in ``ours`` and in ``kernels``, merged ones included."""
        return _errors(self.ours), _errors(self.kernels)

    def finish(self) -> tuple[list[Event], dict[str, str]]:
        """End both of ours and read all three to the end.

        Returns the last events, and the statistics that each command printed.
        """
        rest, native_words = self._native.stop()
        self.ours += rest
        rest, proposed_words = self._proposed.stop()
        while data := self._group.read():
            self.kernels += data
        accounts = {self._native.words: native_words, self._proposed.words: proposed_words}
        return _events(self._decoder.feed(rest)), accounts


def _events(messages: Iterable[Message]) -> list[Event]:
    return [message for message in messages if not isinstance(message, StateChange | Lost)]


def _errors(stream: bytes) -> int:
    events = Decoder().feed(stream)
    return sum(event.error_count for event in events if isinstance(event, FsErrorEvent))
