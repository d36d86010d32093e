"""What lies between an emulated group and the descriptor that its client reads."""

from __future__ import annotations

from typing import Protocol

from fserr_bpf.model.queue import NotificationQueue


class Feed(Protocol):
    """What a channel gives to its client: the emulated group."""

    queue: NotificationQueue

    def pump(self) -> None:
        """Take everything into the queue that the kernel has so far; may call ``fed``."""


class Channel(Protocol):
    """The client's descriptor of one group, and every copy that is made of it.

    The queue calls `before_insert` when something comes in, so that nothing happens to groups that
    get nothing. Whoever has inserted calls `fed`.
    """

    @property
    def identity(self) -> tuple[int, int]:
        """(st_dev, st_ino), by which the client's descriptors of it are known."""

    def client_end(self) -> int | None:
        """A descriptor to inject; the caller hands it back to `given`. Raises OSError.

        None where there was one already, and can be no second.
        """

    def given(self, end: int) -> None:
        """Close our copy of the client's descriptor, now that the client has its own or none."""

    def before_insert(self) -> None:
        """The queue gets back what the client has not read, so that it may merge and counts."""

    def fed(self) -> None:
        """The queue may have more than before."""

    def close(self) -> None:
        """Give nothing more; reads of the client's descriptors wait for ever or fail."""
