"""``fanotify_mark(2)`` on an emulated group: the kernel judges, the group remembers.

Flags and mask are judged before the path is looked at, as in ``do_fanotify_mark()``; then
the shadow is marked as the client itself would have been, in its namespaces and rights.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fserr_bpf.closing import Closing
from fserr_bpf.kernelgroup import KernelGroup
from fserr_bpf.live.attributes import known_attributes
from fserr_bpf.live.client import Client
from fserr_bpf.takeover.calls import MarkCall
from fserr_bpf.takeover.group import EmulatedGroup
from fserr_bpf.takeover.objects import Marked, look_at
from fserr_bpf.takeover.shadow import Locator
from fserr_bpf.uapi.fanotify import FAN_MARK_DONT_FOLLOW, FAN_REPORT_FID

_AT_FDCWD = -100


class _Found(NamedTuple):
    dev: int
    marked: Marked


class Marking(Closing):
    """Marks shadows for clients; ``kernel_group`` stands in for the probes of ext4.

    ``groups`` are all that are emulated, by device and inode of their descriptors.
    """

    def __init__(
        self,
        kernel_group: KernelGroup | None,
        groups: Mapping[tuple[int, int], EmulatedGroup],
    ) -> None:
        self._kernel_group = kernel_group
        self._groups = groups
        self._locator = Locator(FAN_REPORT_FID)

    def perform(
        self, group: EmulatedGroup, call: MarkCall, client: Client, waits: Callable[[], bool]
    ) -> None:
        """The whole call; OSError with the errno that the client is to get.

        ``waits`` says that it still waits, so that what was looked up is its own; otherwise
        nothing is done.
        """
        if call.flushes:
            client.in_context(_AT_FDCWD, b"/", lambda *_: group.mark(call, _AT_FDCWD, None))
            group.flushed(call)
            return
        found = self._mark(group, call, client, waits)
        if found is None:
            return
        if call.errors and call.removes:
            group.removed(call, *found)
        elif call.errors:
            group.added(call, *found)
        if group.must_hold(call, *found):
            client.in_context(call.dirfd, call.name, lambda *where: group.hold(call, *where))
        group.refresh()

    def _mark(
        self, group: EmulatedGroup, call: MarkCall, client: Client, waits: Callable[[], bool]
    ) -> _Found | None:
        """Mark the shadow; what the mark is on, if that matters."""
        matters = (call.errors or (call.removes and group.watches)) and (
            call.whole or call.of_inode
        )
        adds = call.errors and not call.removes and not call.ignores

        def work(dirfd: int, name: bytes | None) -> Marked | None:
            if not waits():
                raise InterruptedError(errno.EINTR, "the call was given up")
            dirfd, name = self._object(call.lookup, dirfd, name)
            group.mark(call, dirfd, name)
            if not matters:
                return None
            try:
                self._locator.mark(call.lookup, dirfd, name)
                if adds and self._kernel_group:
                    self._kernel_group.mark_at(call.lookup, dirfd, name)
                return look_at(call.lookup, dirfd, name)
            except OSError:
                if call.whole:
                    raise
                return None  # an inode of a file system without handles: nothing to hear

        marked = client.in_context(call.dirfd, call.name, work)
        if marked is None:
            return None
        dev = self._locator.dev()
        if dev is None:  # unmounted since, and the mark with it
            raise OSError(errno.ENOENT, "the file system has gone")
        return _Found(dev, marked)

    def _object(self, lookup: int, dirfd: int, name: bytes | None) -> tuple[int, bytes | None]:
        """What to mark: for a descriptor of ours the real group behind it.

        Then the answer is the kernel's, and nobody waits for himself: the file system of an
        exact descriptor asks the supervisor.
        """
        if name == b"":
            return dirfd, name
        try:
            follow = not lookup & FAN_MARK_DONT_FOLLOW
            known = known_attributes(name, dirfd, follow=follow)
        except OSError:  # the kernel says it again
            return dirfd, name
        group = self._groups.get((known.device, known.inode))
        return (group.shadow.fileno(), None) if group else (dirfd, name)

    def close(self) -> None:
        """Give up its own group."""
        self._locator.close()
