"""What waits for one output: so many messages, and for those that found no room what they were."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from fserr_bpf.model.event import FsErrorEvent, Lost
from fserr_bpf.outputs.schema import Message
from fserr_bpf.service.description import Full


class Backlog:
    """Messages in order, as pure state. A loss takes no room and stands where they were missed.

    ``limit`` is a number of messages; ``clock`` gives CLOCK_REALTIME in nanoseconds.
    """

    def __init__(
        self, limit: int, drop: Full = Full.NEWEST, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._limit = limit
        self._drop = drop
        self._clock = clock
        self._waiting: deque[Message] = deque()
        self._losses = 0  # of what waits, these are losses
        self.lost = 0
        """Messages that are in a loss."""

    def __len__(self) -> int:
        """All that waits, losses too."""
        return len(self._waiting)

    @property
    def messages(self) -> int:
        """What waits without losses."""
        return len(self._waiting) - self._losses

    def put(self, message: Message) -> bool:
        """Let it wait; False if it, or the oldest, was lost for it."""
        if self.messages < self._limit:
            self._waiting.append(message)
            return True
        if self._drop is Full.NEWEST:
            self._lose(message)
            return False
        earlier = self._waiting.popleft()
        if isinstance(earlier, Lost):
            earlier = self._joined(earlier, self._waiting.popleft())
        else:
            earlier = self._joined(None, earlier)
            self._losses += 1
        self._waiting.appendleft(earlier)
        self._waiting.append(message)
        return False

    def _lose(self, message: Message) -> None:
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, Lost):
            self._waiting[-1] = self._joined(last, message)
        else:
            self._waiting.append(self._joined(None, message))
            self._losses += 1

    def _joined(self, loss: Lost | None, message: Message) -> Lost:
        self.lost += 1
        seq = message.id.seq if message.id else 0
        errors = message.error_count if isinstance(message, FsErrorEvent) else 0
        if loss is None:
            return Lost(seq, seq, errors, self._clock(), message.id)
        return loss._replace(last=seq, errors=loss.errors + errors, id=message.id)

    def take(self, most: int) -> list[Message]:
        """The first that wait, ``most`` of them at most."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._losses -= sum(isinstance(each, Lost) for each in taken)
        return taken

    def put_back(self, taken: list[Message]) -> None:
        """They were not delivered after all."""
        self._losses += sum(isinstance(each, Lost) for each in taken)
        self._waiting.extendleft(reversed(taken))
