"""The pipeline: ring -> record -> event -> group queue. The one place where live meets model.

``Monitor`` behaves like a fanotify group: errors queue up and merge while nobody
reads, ``fileno()`` polls readable while something waits, ``read()`` returns the
bytes that read(2) would have returned. One thread owns it.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from fserr_bpf import details
from fserr_bpf.closing import Closing
from fserr_bpf.codec import reader
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.codec.handles import inode_of
from fserr_bpf.codec.record import runs
from fserr_bpf.codec.side import record_in, side_in
from fserr_bpf.errors import UsageError
from fserr_bpf.following import Following
from fserr_bpf.kernelgroup import SOURCE, TRACES_KEPT, KernelGroup
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.fanotify import kernel_accepts_fs_error, max_queued_events
from fserr_bpf.live.kallsyms import Kallsyms, shows_addresses
from fserr_bpf.live.pidfd import open_pidfd
from fserr_bpf.live.probes import EXT4_EMITTERS, wanted
from fserr_bpf.marks import MarkedFilesystem, MarkTable, inode_in
from fserr_bpf.model.event import Event, FsErrorEvent, OverflowEvent
from fserr_bpf.model.group import NotificationQueue
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.names.lookup import Names
from fserr_bpf.origin import origin_of, place, side_of
from fserr_bpf.statistics import Statistics
from fserr_bpf.streams import RULES, Report
from fserr_bpf.uapi.proposed import FAN_REPORT_DETAILED_ERROR, FAN_REPORT_ERROR_LOCATION
from fserr_bpf.uapi.record import Flag, Probe, Record

KERNEL_LIMIT = -1

_NO_TASK = int(Flag.NO_TASK)
_READ_SIZE = 65536
_PUMP_ROUNDS = 8  # a pump takes a full ring at most: a flood must not starve the reader


class Monitor(Closing):
    """An emulated FAN_FS_ERROR group on a running kernel.

    ``marks``: what to watch, or None for every mounted ext4, XFS, btrfs and f2fs,
    also those mounted later. ``max_events``: length of the queue, None for no
    limit; by default what the kernel gives its own groups. ``flags``: FAN_REPORT_* flags
    of fanotify_init(2), FAN_REPORT_FID implied. ``detail``: events have an ``origin.side``
    and names, and in the stream proposed its two info records. ``armed``: probes attached
    before, to be shared by one monitor after the other; without it the monitor
    attaches its own and detaches them.

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
        armed: Armed | None = None,
        debug: bool = False,
    ) -> None:
        self.stream = stream
        if detail and stream is Stream.PROPOSED:
            flags |= FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION
        self._flags = GroupFlags.of(flags)
        if (self._flags.detail or self._flags.location) and stream is not Stream.PROPOSED:
            raise UsageError(f"the stream {stream} has no details", "ask for the stream proposed")
        with contextlib.ExitStack() as stack:
            self.marks = MarkTable(marks)
            self.armed = armed or stack.enter_context(Armed([stream], debug=debug, detail=detail))
            self._sources = {a.probe: a.source for a in reversed(self.armed.attached)}
            self._wanted = wanted(stream, self.armed.kernel)
            self._rules = {p: r for p, r in RULES[stream].items() if p in self._wanted}
            if max_events == KERNEL_LIMIT:
                max_events = max_queued_events()
            self._queue = NotificationQueue(max_events, self._overflow)
            self.armed.watch(self, self.marks.devices())
            stack.callback(self.armed.watch, self, ())
            self._counts = Counter[str]()
            self._lost_before = self._lost_seen = self._lost()
            self._missed_before = self.armed.missed()
            self._addresses = shows_addresses()
            self._kallsyms = stack.enter_context(Kallsyms())
            self._kernel_group = self._open_kernel_group(stack)
            self.names = stack.enter_context(Names()) if detail else None
            self._following = stack.enter_context(
                Following(self, self.marks, self.armed, self._kernel_group, self.names)
            )
            self._pending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._pending)
            self._epoll = stack.enter_context(select.epoll())
            self._epoll.register(self.armed.ring.fileno(), select.EPOLLIN)
            self._epoll.register(self._pending, select.EPOLLIN)
            if self._kernel_group:
                self._epoll.register(self._kernel_group.fileno(), select.EPOLLIN)
            self._closing = stack.pop_all()

    # -- reading -----------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor for poll, epoll or asyncio: readable while errors wait."""
        return self._epoll.fileno()

    def __len__(self) -> int:
        """Events in the queue; errors that are still in the ring do not count."""
        return len(self._queue)

    def pop(self) -> Event:
        """Take the first queued event; IndexError when the queue is empty.

        With FAN_REPORT_PIDFD its pidfd is the caller's to close.
        """
        event = self._with_pidfd(self._queue.pop())
        self._signal()
        if not isinstance(event, FsErrorEvent):
            return event
        event = self._resolve(event)
        return self.names.complete(event) if self.names else event

    def read_events(self) -> Iterator[Event]:
        """Everything that waits now, without blocking; an event leaves as it is yielded."""
        self.pump()
        while self._queue:
            yield self.pop()

    def read(self, size: int = _READ_SIZE) -> bytes:
        """What ``read(2)`` on a non-blocking group returns; b"" when nothing waits.

        Raises OSError EINVAL when the first event does not fit; it stays.
        """
        self.pump()
        try:
            return reader.read(self._queue, size, self._with_pidfd)
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
        sources = {self.armed.ring.fileno(), self._following.fileno()}
        poll.register(self.armed.ring.fileno(), select.POLLIN)
        if self._kernel_group:
            sources.add(self._kernel_group.fileno())
            poll.register(self._kernel_group.fileno(), select.POLLIN)
        if self.names and (names := self.names.fileno()) is not None:
            sources.add(names)
            poll.register(names, select.POLLIN)
        # not in the epoll: polling takes the notice, so only its reader may
        poll.register(self._following.fileno(), select.POLLPRI | select.POLLERR)
        for fd, mask in (others or {}).items():
            poll.register(fd, mask)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
        self._following.changed |= self._following.fileno() in ready
        return frozenset(ready - sources)

    # -- the pipeline ------------------------------------------------------------

    def pump(self) -> None:
        """Move everything that the probes have pushed into the group's queue."""
        wall = time.time_ns() - time.monotonic_ns()
        # the kernel's events first: then the trace of each is in the ring already
        kernel_events = list(self._kernel_group.read()) if self._kernel_group else []
        for _ in range(_PUMP_ROUNDS):
            entries = self.armed.ring.drain()
            if not entries:
                break
            # a run has one time for all, so it must not reach over the start of a mark
            whole = record_in(entries[0]).time_ns >= self.marks.newest_ns
            for same in runs(entries) if whole else ([entry] for entry in entries):
                self._take(same, wall)
        if self._kernel_group:
            for event in kernel_events:
                self._take_kernel_event(self._kernel_group, event, wall)
            self._kernel_group.forget(time.monotonic_ns())
        self._note_losses()
        self._following.follow()
        if self.names:
            self.names.collect()
        self._signal()

    def _take(self, same: list[bytes], wall: int) -> None:
        """Handle ring entries that are alike but for their time."""
        record, count = record_in(same[0]), len(same)
        if record.probe == Probe.SB_DELETE:
            if ended := self.marks.end(record.dev, record.time_ns):
                self._following.ended([ended])
            return
        if record.probe == Probe.EXT4_TRACE:
            if self._kernel_group:
                for entry in same[-TRACES_KEPT:]:
                    self._kernel_group.add_trace(entry)
            return
        rule = self._rules.get(record.probe)
        if rule is None:  # shared probes: this one serves another stream
            return
        marked = self.marks.get(record.dev)
        if marked is None or record.time_ns < marked.since_ns:
            self._counts["not marked"] += count
            return
        report = rule(record)
        if report is None:
            self._counts["not in stream"] += count
            return
        if not marked.hears(record.time_ns, inode_in(record) if report.inode else None):
            self._counts["not marked"] += count
            return
        task = None if record.flags & _NO_TASK else (self._pid(record), record.task_start)
        key = (task, details.apart(record, report, self._flags))
        make = partial(self._event, same[0], marked, report, wall)
        self._queue.insert(marked.fsid, key, make)
        if count > 1:  # apart from the first, which may have been the last that fits
            self._queue.insert(marked.fsid, key, make, count - 1)

    def _event(
        self, entry: bytes, marked: MarkedFilesystem, report: Report, wall: int
    ) -> FsErrorEvent:
        record = record_in(entry)
        source = self._sources[Probe(record.probe)]
        origin = origin_of(record, marked, wall, source)
        if self.names:
            inside, owners = side_in(entry), self.names.owners
            side = side_of(record, inside, report.error, source, owners=owners)
            origin = origin._replace(side=side)
        return FsErrorEvent(
            fsid=marked.fsid,
            handle=marked.handle(record) if report.inode else None,
            error=report.error,
            error_count=1,
            pid=0 if record.flags & _NO_TASK else self._pid(record),
            fd=self._flags.fd,
            pidfd=self._flags.no_pidfd,
            extra=tuple(details.records(record, report, self._flags, addresses=self._addresses)),
            origin=origin,
        )

    def _pid(self, record: Record) -> int:
        return record.tid if self._flags.thread else record.tgid

    def _overflow(self) -> OverflowEvent:
        return OverflowEvent(fd=self._flags.fd, pidfd=self._flags.no_pidfd, time_ns=time.time_ns())

    def _with_pidfd(self, event: Event) -> Event:
        """Open the pidfd of an event that is being read (``copy_event_to_user()``)."""
        if not self._flags.pidfd or not isinstance(event, FsErrorEvent) or not event.pid:
            return event
        try:
            pidfd = open_pidfd(event.pid, event.origin.task_start if event.origin else 0)
        except ProcessLookupError:
            return event  # as the kernel says it: made without one
        except OSError as error:
            pidfd = self._flags.failed_pidfd(error.errno or 0)
        return event._replace(pidfd=pidfd)

    def _resolve(self, event: FsErrorEvent) -> FsErrorEvent:
        """Name the function of a failaddr: on delivery, so never for what merged."""
        origin = event.origin
        if not origin or not origin.failaddr or origin.line:  # ext4 and btrfs name it themselves
            return event
        name = self._kallsyms.function(origin.failaddr)
        return event._replace(origin=origin._replace(function=name)) if name else event

    # -- kernels without kprobes ---------------------------------------------------

    def _open_kernel_group(self, stack: contextlib.ExitStack) -> KernelGroup | None:
        every = Probe.FSERROR in self._wanted
        if self.armed.kernel.kprobes or not (every or self._wanted & EXT4_EMITTERS):
            return None
        if not kernel_accepts_fs_error():
            return None
        group = stack.enter_context(KernelGroup(every=every, thread=self._flags.thread))
        for marked in self.marks:
            group.mark(marked)
        return group

    def _take_kernel_event(self, group: KernelGroup, event: FsErrorEvent, wall: int) -> None:
        marked = self.marks.by_fsid(event.fsid)
        inode = inode_of(event.handle) if event.handle else None
        if marked is None or not marked.hears(time.monotonic_ns(), inode):
            self._counts["not marked"] += event.error_count
            return
        entry = group.take_trace(marked.dev, event)
        origin = place(marked, time.time_ns(), SOURCE)
        trace = record_in(entry) if entry else None
        if entry and trace:
            source = self._sources[Probe.EXT4_TRACE]
            origin = origin_of(trace, marked, wall, f"{SOURCE}+{source}")
            if self.names:
                inside, owners = side_in(entry), self.names.owners
                side = side_of(trace, inside, event.error, source, owners=owners)
                origin = origin._replace(side=side)
        if inode:
            origin = origin._replace(ino=inode.ino, generation=inode.generation)
        error = event.error if self.stream is Stream.NATIVE else abs(event.error)
        self._queue.insert(
            marked.fsid,
            (event.pid, trace.task_start if trace else 0),
            lambda: event._replace(
                error=error, origin=origin, fd=self._flags.fd, pidfd=self._flags.no_pidfd
            ),
            event.error_count,
        )

    # -- losses, mounts, wake-ups ----------------------------------------------------

    def _note_losses(self) -> None:
        """What found the ring full becomes one FAN_Q_OVERFLOW in the queue."""
        lost = self._lost()
        if lost > self._lost_seen:
            self._lost_seen = lost
            self._queue.overflow()

    def _lost(self) -> int:
        """Errors of this stream that found the ring full; hints and ends of marks are none."""
        return sum(
            count for probe, count in enumerate(self.armed.ring.lost()) if probe in self._rules
        )

    def blind(self) -> dict[str, list[str]]:
        """What is watched here but cannot be seen on this kernel: reason -> what is missed."""
        return self.armed.blind(
            self.stream,
            kernel_group=self._kernel_group is not None,
            fstypes=None if self.marks.follows else {marked.fstype for marked in self.marks},
        )

    def news(self) -> list[str]:
        """What has changed about the marks, or was found, since the last call, in words."""
        news, self._following.news = self._following.news, []
        return news + (self.names.news() if self.names else [])

    def _signal(self) -> None:
        """Keep ``fileno()`` readable while events wait that nobody has read."""
        if self._queue:
            os.eventfd_write(self._pending, 1)
        else:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._pending)

    # -- the end -----------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """The loss arithmetic so far."""
        missed = self.armed.missed()
        return Statistics(
            delivered=self._queue.delivered,
            merged=self._queue.merged,
            waiting=self._queue.inserted - self._queue.delivered,
            ring_full=self._lost_seen - self._lost_before,
            queue_full=self._queue.overflowed,
            not_marked=self._counts["not marked"],
            not_in_stream=self._counts["not in stream"],
            missed={name: n - self._missed_before[name] for name, n in missed.items()},
        )

    def close(self) -> None:
        """Detach, unless the probes are shared, and release everything."""
        self._closing.close()
