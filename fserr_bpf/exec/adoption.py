"""A client's own group becomes an emulated one: its descriptors are exchanged.

That happens within the call that first marks it for errors, once the mark is there: all
copies in the caller's table of descriptors become the channel's, under their numbers. What
already waits for the group goes on with the channel: epoll instances are changed, threads in
read(2) or poll(2) begin anew. A copy in another process is the kernel's until that marks too.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fserr_bpf.exec.group import EmulatedGroup
from fserr_bpf.exec.loop import Loop
from fserr_bpf.tasks.child import start_in_child
from fserr_bpf.tasks.descriptors import copies
from fserr_bpf.tasks.epolls import Waiting, move, waiting_for
from fserr_bpf.tasks.seccomp import Listener, Notification
from fserr_bpf.tasks.waiting import look_again, threads_that_wait

_LOOK_AFTER_NS = 1_000_000_000
_LONGEST_SECONDS = 2  # a thread may be in a call that no stop interrupts


class _Exchange(NamedTuple):
    """``exchanged`` is called with the numbers that the caller has of the channel now."""

    call: Notification
    group: EmulatedGroup
    exchanged: Callable[[Sequence[int]], None]


class Adoptions:
    """All that are under way; ``given_up`` is called with a group that no client has got, and
    ``trouble`` with a line for people.
    """

    def __init__(
        self,
        listener: Listener,
        loop: Loop,
        *,
        given_up: Callable[[EmulatedGroup], None],
        trouble: Callable[[str], None],
    ) -> None:
        self._listener, self._loop = listener, loop
        self._given_up, self._trouble = given_up, trouble
        self._callers: dict[EmulatedGroup, list[Notification]] = {}

    def begin(self, call: Notification, group: EmulatedGroup) -> None:
        """A call that will end with `exchange` or `refuse`, unless its caller vanishes."""
        if not self._callers:
            self._look_after_later()
        self._callers.setdefault(group, []).append(call)

    def refuse(self, call: Notification, group: EmulatedGroup) -> None:
        """The mark was not made."""
        callers = self._callers.get(group, [])
        if call in callers:
            callers.remove(call)
        if not callers:
            self._callers.pop(group, None)
            if not group.number:
                self._given_up(group)

    def exchange(
        self,
        call: Notification,
        group: EmulatedGroup,
        exchanged: Callable[[Sequence[int]], None],
    ) -> None:
        """Give the caller the channel; ``exchanged`` is called, some time later, with the numbers
        of its descriptors: none if it has gone, or there is no second descriptor to give.
        Raises OSError.
        """
        ours, found = group.shadow.fileno(), list[Waiting]()
        end = group.channel.client_end()
        if end is None:
            exchanged(())
            return
        try:
            numbers = [
                copy.number
                for copy in copies(call.tid, ours)
                if self._listener.replace(call, end, copy.number, cloexec=copy.cloexec)
            ]
            waiting = threads_that_wait(call.tid, numbers) if numbers else []
            found = waiting_for(call.tid, ours, numbers) if numbers else []

            def let_them_see() -> None:
                signal.alarm(_LONGEST_SECONDS)
                move(found, ours, end)
                look_again(waiting)

            child = start_in_child(let_them_see) if found or waiting else None
        finally:
            group.channel.given(end)
            for instance in found:
                os.close(instance.epoll)
        if child is None:
            exchanged(numbers)
        else:
            self._when_ended(child, lambda: exchanged(numbers))

    def _when_ended(self, child: int, then: Callable[[], None]) -> None:
        """Serve meanwhile: what the child does may ask us, as the server of exact descriptors."""
        pidfd = os.pidfd_open(child)

        def ended(_events: int) -> None:
            self._loop.remove(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(child, 0)
            if status:
                self._trouble(
                    "an epoll instance or a thread of a client waits for no errors; "
                    "let it begin to wait after the first mark"
                )
            then()

        self._loop.add(pidfd, select.EPOLLIN, ended)

    def _look_after_later(self) -> None:
        self._loop.call_at(time.monotonic_ns() + _LOOK_AFTER_NS, self._look_after)

    def _look_after(self) -> None:
        """Give up what nobody waits for any more."""
        for group, callers in list(self._callers.items()):
            for call in list(callers):
                if not self._listener.waits(call):
                    self.refuse(call, group)
        if self._callers:
            self._look_after_later()
