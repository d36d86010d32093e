"""The monitor's end of the helper process, which looks up what may need a disk.

A look-up may wait for a broken disk, for ever. So it is another process that waits, the
monitor only asks; what is not answered is not known.
"""

from __future__ import annotations

import select
from typing import Any, NamedTuple

from fserr_bpf.children.channel import Channel, channel_pair
from fserr_bpf.children.spawn import Child, spawn
from fserr_bpf.closing import Closing
from fserr_bpf.helper.questions import Kind

_GONE = "the process has ended"


class Answer(NamedTuple):
    """To the question ``number``: what was ``found``, as JSON has it.

    It is None, with the reason, where the kernel refused the look-up.
    """

    number: int
    found: Any
    reason: str


class Helper(Closing):
    """A running helper, whose rights are dropped before it is asked anything.

    Each kind of question has a channel, so that those of another kind never take its room.
    Whoever polls ``fileno()`` calls ``receive()``; then ``answers()`` has them by kind. ``ended``
    says why nobody can be asked any more, "" while it runs. Nothing here raises because of it.
    """

    def __init__(self) -> None:
        self.ended = ""
        self._ready = False
        self._rights_dropped = False
        self._last = 0
        self._channels: dict[Kind, Channel] = {}
        self._answers: dict[Kind, list[Answer]] = {kind: [] for kind in Kind}
        self._poll = select.epoll()
        self._child: Child | None = None
        try:
            self._child = spawn("fserr_bpf.helper.worker")
        except OSError as error:
            self.ended = str(error)
            return
        self._poll.register(self._child.channel, select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor to poll for POLLIN, also once it has ended."""
        return self._poll.fileno()

    def wait_until_ready(self) -> None:
        """Wait until it runs: what it takes to start is not taken off anybody's deadline."""
        while self._child and not self._ready:
            self._poll.poll()
            self.receive()

    def drop_rights(self, user: str | None, *, processes: bool = False) -> None:
        """Have it give up its rights, as ``drop()`` for ``user``; by default when first asked.

        ``processes``: it will be asked of what is mounted for other processes.
        """
        if self._rights_dropped or not self._child:
            return
        self._rights_dropped = True
        theirs = []
        try:
            for kind in Kind:
                self._channels[kind], end = channel_pair()
                theirs.append(end)
                self._poll.register(self._channels[kind], select.EPOLLIN)
            message = {"user": user, "processes": processes}
            self._child.channel.send_descriptors(message, [end.fileno() for end in theirs])
        except ConnectionError:
            self._end(_GONE)
        except OSError as error:  # no descriptor is left
            self._end(str(error))
        finally:
            for end in theirs:
                end.close()

    def ask(self, kind: Kind, question: dict[str, Any]) -> int | None:
        """The number that the answer will have; None if there is no room for one more now."""
        self.drop_rights(None)
        if self.ended:
            return None
        try:
            self._channels[kind].send({"number": self._last + 1, **question}, wait=False)
        except BlockingIOError:
            return None
        except ConnectionError:
            self._end(_GONE)
            return None
        self._last += 1
        return self._last

    def receive(self) -> None:
        """Take the answers that are there."""
        try:
            for kind, channel in self._channels.items():
                while message := _next(channel):
                    self._answers[kind].append(Answer(**message))
            if self._child and _next(self._child.channel):
                self._ready = True
        except EOFError:
            self._end(_GONE)

    def answers(self, kind: Kind) -> list[Answer]:
        """Those of this kind that were received since the last call."""
        answers, self._answers[kind] = self._answers[kind], []
        return answers

    def _end(self, reason: str) -> None:
        self.ended = reason
        self._end_child()

    def _end_child(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        if self._child:
            self._child.end()
            self._child = None

    def close(self) -> None:
        """End it; one that hangs in the kernel is left to it."""
        self._end_child()
        self._poll.close()


def _next(channel: Channel) -> dict[str, Any] | None:
    try:
        return channel.receive(wait=False)
    except BlockingIOError:
        return None
