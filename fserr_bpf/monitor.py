"""The pipeline: ring -> record -> event -> group queue, for one group.

``Monitor`` behaves like a fanotify group: errors queue up and merge while nobody
reads, ``fileno()`` polls readable while something waits, ``read()`` returns the
bytes that read(2) would have returned. One thread owns it.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from fserr_bpf.closing import Closing
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.errors import MarkError, UsageError
from fserr_bpf.group.describe import overflow_event
from fserr_bpf.group.elsewhere import Elsewhere
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.following import Following
from fserr_bpf.group.hearing import Gap, hearing_of
from fserr_bpf.group.source import Source
from fserr_bpf.group.statistics import Statistics
from fserr_bpf.helper.client import Helper
from fserr_bpf.helper.placelookup import Places
from fserr_bpf.kernel.cgroups import tracks_writeback
from fserr_bpf.kernel.fanotify import max_queued_events
from fserr_bpf.kernel.kallsyms import Kallsyms, shows_addresses
from fserr_bpf.kernel.mountnamespaces import check_may_look
from fserr_bpf.kernel.mounts import MountTable, read_mounts
from fserr_bpf.marks.cgroups import CgroupFilter
from fserr_bpf.marks.followed import followed_mounts
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.mark import Mark, SuperblockErrors
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.model.stream import Stream
from fserr_bpf.names.lookup import Names
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.state.superblocks import superblocks
from fserr_bpf.state.watch import StateWatch
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION

KERNEL_LIMIT = -1
"""As ``max_events``: what the running kernel gives its own groups."""

_READ_SIZE = 65536


class Monitor(Closing):
    """An emulated FAN_FS_ERROR group on a running kernel.

    ``marks``: what to watch, or None for every file system on a disk that can be heard,
    also those mounted later. ``max_events``: length of the queue, None for no
    limit; by default what the kernel gives its own groups. ``flags``: FAN_REPORT_* flags
    of fanotify_init(2), FAN_REPORT_FID implied. ``detail``: events have an ``origin.detail``
    and names, and in the stream proposed its two info records. ``attached``: probes attached
    before, to be shared by one monitor after the other; without it the monitor
    attaches its own and detaches them. ``ignore``: what such marks would hear is not
    delivered. ``superblock``: which marks hear errors without an inode. ``cgroup``: the
    folder of a cgroup whose errors alone are delivered. Marks on parts of a file system,
    ignore marks and cgroups need probes attached with ``places``. ``states``: look at the state
    of what is watched too, see ``states``. ``all_namespaces``: without marks, also follow what is
    mounted in other mount namespaces.

    Raises FserrError subclasses: PrivilegeError, KernelError, BccError,
    AttachError, MarkError, UsageError.
    """

    def __init__(
        self,
        marks: Iterable[Mark] | None = None,
        stream: Stream = Stream.PROPOSED,
        *,
        max_events: int | None = KERNEL_LIMIT,
        flags: int = 0,
        detail: bool = False,
        ignore: Iterable[Mark] = (),
        superblock: SuperblockErrors = SuperblockErrors.FILESYSTEM,
        cgroup: str | None = None,
        states: bool = False,
        all_namespaces: bool = False,
        attached: AttachedProbes | None = None,
        debug: bool = False,
    ) -> None:
        if detail and stream is Stream.PROPOSED:
            flags |= FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION
        group_flags = GroupFlags.of(flags)
        if (group_flags.detail or group_flags.location) and stream is not Stream.PROPOSED:
            raise UsageError(f"the stream {stream} has no details", "ask for the stream proposed")
        self.stream = stream
        with contextlib.ExitStack() as stack:
            self._elsewhere = stack.enter_context(_elsewhere(marks)) if all_namespaces else None
            table = read_mounts()
            if self._elsewhere:
                table = self._elsewhere.together(table, changed=False)
            self.marks = MarkTable(marks, ignore, superblock, table)
            owner = CgroupFilter(cgroup, owners=tracks_writeback()) if cgroup else None
            need = self.marks.partial or owner is not None
            asks = detail or self.marks.partial
            # both start while the probes are attached
            self.states = stack.enter_context(StateWatch(self.not_seen)) if states else None
            self.helper = stack.enter_context(Helper()) if asks else None
            self.attached = attached or stack.enter_context(
                AttachedProbes([stream], debug=debug, detail=detail, places=need)
            )
            if need and not self.attached.places:
                raise UsageError(
                    "the probes were attached without places", "attach them with places=True"
                )
            self.places: Places | None = None
            if self.helper and self.marks.partial:
                self.helper.wait_until_ready()
                self.places = stack.enter_context(Places(self.helper))
            self.names = Names(self.helper) if self.helper and detail else None
            if max_events == KERNEL_LIMIT:
                max_events = max_queued_events()
            self._group = ErrorGroup(
                stream,
                group_flags,
                self.marks,
                self.attached,
                NotificationQueue(max_events, partial(overflow_event, group_flags)),
                owners=self.names.owners if self.names else None,
                addresses=group_flags.detail and shows_addresses(),
                places=self.places,
                cgroup=owner,
            )
            self._missed_before = self.attached.missed()
            self.attached.watch(self, self.marks.devices())
            stack.callback(self.attached.watch, self, ())
            self._source = stack.enter_context(
                Source(self.attached, self._group.wanted, thread=group_flags.thread)
            )
            self._mark_in_kernel()
            self._kallsyms = stack.enter_context(Kallsyms())
            self._following = stack.enter_context(
                Following(
                    self,
                    self.marks,
                    self.attached,
                    self._source.kernel_group,
                    self.names,
                    elsewhere=self._elsewhere,
                    look=self._look_at_states,
                )
            )
            if self.states:
                self.states.settle()
            self._hearing = hearing_of(self.attached)
            if self._hearing:
                stack.enter_context(self._hearing)
            self._pending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._pending)
            self._epoll = stack.enter_context(select.epoll())
            # paths change no event, so nobody need be woken for them
            places = self._filenos_of_helper() if self.places else []
            for fd in (*self._source.filenos(), *places, *self._timed(), self._pending):
                self._epoll.register(fd, select.EPOLLIN)
            self._closing = stack.pop_all()

    def _mark_in_kernel(self) -> None:
        kernel_group = self._source.kernel_group
        if kernel_group is None:
            return
        for marked in self.marks:
            try:
                kernel_group.mark(marked)
            except MarkError:
                if not self.marks.follows:
                    raise  # else it was unmounted meanwhile, and its mark ends with the first pump

    # -- reading -----------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor for poll, epoll or asyncio: readable while errors wait."""
        return self._epoll.fileno()

    def __len__(self) -> int:
        """Events in the queue; errors that are still in the ring do not count."""
        return len(self._group.queue)

    @property
    def undecided(self) -> int:
        """Errors that wait until it is known where they happened: a second at most."""
        return self._group.undecided

    def pop(self) -> Event:
        """Take the first queued event; IndexError when the queue is empty.

        With FAN_REPORT_PIDFD its pidfd is the caller's to close.
        """
        event = self._group.pop()
        self._signal()
        if not isinstance(event, FsErrorEvent):
            return event
        if self.states and event.origin:
            self.states.touch(event.origin.dev)
        event = self._resolve(event)
        return self.names.complete(event) if self.names else event

    def read_events(self) -> Iterator[Event]:
        """Everything that waits now, without blocking; an event leaves as it is yielded."""
        self.pump()
        while self._group.queue:
            yield self.pop()

    def read(self, size: int = _READ_SIZE) -> bytes:
        """What ``read(2)`` on a non-blocking group returns; b"" when nothing waits.

        Raises OSError EINVAL when the first event does not fit; it stays.
        """
        self.pump()
        try:
            return self._group.read(size)
        except BlockingIOError:
            return b""
        finally:
            self._signal()

    def __iter__(self) -> Iterator[Event]:
        """Events for ever; blocks while there are none."""
        while True:
            yield from self.read_events()
            self.wait()

    def wait(
        self, timeout: float | None = None, others: Mapping[int, int] | None = None
    ) -> frozenset[int]:
        """Block until there is more to pump, or ``timeout`` seconds have passed.

        Unlike ``fileno()`` this does not wake up for what is queued already, so a
        slow reader can be waited for at the same time: ``others`` maps further
        descriptors to their poll(2) masks; those that are ready are returned.
        """
        poll = select.poll()
        states = self.states.filenos() if self.states else []
        sources = {*self._source.filenos(), *self._filenos_of_helper(), *self._timed(), *states}
        for fd in sources:
            poll.register(fd, select.POLLIN)
        # not in the epoll: polling takes the notice, so only its reader may
        poll.register(self._following.fileno(), select.POLLPRI | select.POLLERR)
        sources.add(self._following.fileno())
        for fd, mask in (others or {}).items():
            poll.register(fd, mask)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
        self._following.changed |= self._following.fileno() in ready
        return frozenset(ready - sources)

    def _filenos_of_helper(self) -> list[int]:
        """Those of its answers, and of the deadline of one."""
        return [asked.fileno() for asked in (self.helper, self.places) if asked]

    def _timed(self) -> list[int]:
        """Those of what is to be looked at now and then."""
        return [each.fileno() for each in (self._hearing, self._elsewhere) if each]

    # -- the pipeline ------------------------------------------------------------

    def pump(self) -> None:
        """Move everything that the probes have pushed into the group's queue."""
        ended = self._source.pump([self._group])
        if ended:
            self._following.ended(marked for _, marked in ended)
        if self._hearing:
            self._hearing.look()
        if self.helper:
            self.helper.receive()
        self._group.settle()
        self._following.follow()
        if self.states:
            self.states.pump()
        if self.names:
            self.names.collect()
        self._signal()

    def _look_at_states(self, table: MountTable) -> None:
        """The mount table or the marks have changed."""
        if not self.states:
            return
        devices = {marked.dev for marked in self.marks}
        if self.marks.follows:  # also those that could not be marked
            devices |= {mount.dev for mount in followed_mounts(table)}
        self.states.see(superblocks(table), devices)

    def _resolve(self, event: FsErrorEvent) -> FsErrorEvent:
        """Name the function of a failaddr: on delivery, so never for what merged."""
        origin = event.origin
        if not origin or not origin.failaddr or (origin.line and origin.function):
            return event  # ext4 and btrfs name it themselves
        name = self._kallsyms.function(origin.failaddr)
        return event._replace(origin=origin._replace(function=name)) if name else event

    # -- mounts, wake-ups --------------------------------------------------------------

    @property
    def looks_elsewhere(self) -> bool:
        """Whether the mount tables of other processes are read."""
        return self._elsewhere is not None or bool(self.marks.processes)

    def blind(self) -> dict[str, list[str]]:
        """What is watched here but cannot be seen on this kernel: reason -> what is missed."""
        return self.attached.blind(
            self.stream,
            kernel_group=self._source.kernel_group is not None,
            fstypes=None if self.marks.follows else {marked.driver for marked in self.marks},
        )

    def not_seen(self, driver: str) -> tuple[str, ...]:
        """What cannot be heard here of file systems of this driver, in words."""
        group = self._source.kernel_group is not None
        return self.attached.not_seen(driver, self.stream, kernel_group=group)

    def news(self) -> list[str]:
        """What has changed about the marks, or was found, since the last call, in words."""
        news = self.attached.notes + self.marks.notes + self._following.news + self._group.news
        self.attached.notes = []
        self.marks.notes, self._following.news, self._group.news = [], [], []
        news += self.states.news() if self.states else []
        if self._hearing:
            news += self._hearing.news
            self._hearing.news = []
        return news + (self.names.news() if self.names else [])

    def _signal(self) -> None:
        """Keep ``fileno()`` readable while events wait that nobody has read."""
        if self._group.queue:
            os.eventfd_write(self._pending, 1)
        else:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._pending)

    # -- the end -----------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """The loss arithmetic so far."""
        missed = self.attached.missed().items()
        lacking = {name: n - self._missed_before[name] for name, n in missed}
        gaps: tuple[Gap, ...] = ()
        if self._hearing:
            self._hearing.check()
            gaps = tuple(self._hearing.gaps)
        return replace(self._group.statistics(lacking), gaps=gaps)

    def close(self) -> None:
        """Detach, unless the probes are shared, and release everything."""
        self._closing.close()


def _elsewhere(marks: Iterable[Mark] | None) -> Elsewhere:
    """Raises UsageError beside marks, PrivilegeError."""
    if marks is not None:
        raise UsageError("all namespaces are watched without paths and marks", "leave these out")
    check_may_look()
    return Elsewhere()
