"""Errors of the data of files, on the file systems that globs lead to.

Two groups on one ring. What the file systems report themselves (7.0 and later)
has position and length, but only XFS reports writeback so. The page cache sees the writeback
of every file system; its reports of XFS are dropped then, so no error comes twice.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from fserr_bpf.closing import Closing
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.errors import AttachError
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.following import Following
from fserr_bpf.group.hearing import Gap, hearing_of
from fserr_bpf.group.source import Source
from fserr_bpf.helper.client import Helper
from fserr_bpf.kernel.mounts import MountTable
from fserr_bpf.marks.table import MarkedFilesystem, MarkTable
from fserr_bpf.model.event import FsErrorEvent, Fsid
from fserr_bpf.model.queue import NotificationQueue, Result
from fserr_bpf.model.stream import Stream
from fserr_bpf.names.lookup import Names
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import Probe
from fserr_bpf.watchfiles.globs import Glob
from fserr_bpf.watchfiles.views import Views, inside

_PROBES = (Probe.WRITEBACK, Probe.FSERROR)
# 7.0 and later: iomap reports writeback, and of the file systems here XFS is on iomap
_ON_IOMAP = "xfs"
_IOMAP_REPORTS = frozenset({ErrorKind.WRITEBACK.name, ErrorKind.DATA_LOST.name})
_VIEWS_KEPT = 1024
SETTLE_SECONDS = 0.002
"""The kernel reports one failed request several times in a row: they are to be one event."""


class GlobMarks(MarkTable):
    """Marks on the file systems that globs lead to or that are mounted below, now or later."""

    def __init__(self, globs: Sequence[Glob]) -> None:
        self._globs = globs
        self._views = Views(())
        self._last: dict[Dev, Views] = {}
        super().__init__(None)

    def follow(self, table: MountTable) -> list[MarkedFilesystem]:
        """As the base class, but only the mounts that concern the globs."""
        self._views = Views(table)
        at = [self._views.mount_at(glob.prefix) for glob in self._globs]
        concerned = tuple(
            mount
            for mount in table
            if mount in at or any(inside(mount.mount_point, g.prefix) for g in self._globs)
        )
        new = super().follow(concerned)
        for mount in table:
            if self.get(mount.dev):
                self._last[mount.dev] = self._views
        while len(self._last) > _VIEWS_KEPT:
            del self._last[next(iter(self._last))]
        return new

    def views(self, dev: Dev) -> Views:
        """The mounts when the file system of ``dev`` was last seen mounted.

        Unmounting writes data back: the errors of that come when it is gone.
        """
        return self._last.get(dev, self._views)

    def tops(self, dev: Dev) -> Iterator[str]:
        """Folders on the file system of ``dev`` that have all files below which globs match."""
        views = self.views(dev)
        for mount in views.mounts_of(dev):
            prefixes = [glob.prefix for glob in self._globs]
            if any(inside(mount.mount_point, prefix) for prefix in prefixes):
                yield mount.mount_point
            else:
                yield from (prefix for prefix in prefixes if views.mount_at(prefix) is mount)

    def strays(self) -> Iterator[tuple[Glob, str]]:
        """Globs whose own place is on a file system of another type, and that type."""
        for glob in self._globs:
            mount = self._views.mount_at(glob.prefix)
            if mount and not self.get(mount.dev):
                yield glob, mount.fstype


class _FileQueue(NotificationQueue):
    """Only errors of one task that agree in file, number and all that the probe saw merge.

    No limit: whoever pumps takes all out at once.
    """

    def __init__(self) -> None:
        super().__init__(max_events=None)

    def insert(
        self, fsid: Fsid, task: Hashable, make: Callable[[], FsErrorEvent], count: int = 1
    ) -> Result:
        event = make()
        seen = (
            event.origin.detail._replace(stack=()) if event.origin and event.origin.detail else None
        )
        return super().insert(fsid, (task, event.handle, event.error, seen), lambda: event, count)


class FileErrors(Closing):
    """Events of files' data, each with ``origin.detail``, as they happen.

    ``attached``: probes of the streams proposed and fserror with details, attached before.
    Raises FserrError subclasses as ``Monitor`` does.
    """

    def __init__(
        self, globs: Sequence[Glob], *, attached: AttachedProbes | None = None, debug: bool = False
    ) -> None:
        with contextlib.ExitStack() as stack:
            self.marks = GlobMarks(globs)
            self._attached = attached or stack.enter_context(
                AttachedProbes([Stream.PROPOSED, Stream.FSERROR], debug=debug, detail=True)
            )
            sources = {a.probe: a.source for a in self._attached.probes}
            if Probe.WRITEBACK not in sources:
                raise AttachError(
                    "writeback errors cannot be seen on this kernel: "
                    f"{self._attached.failed.get(Probe.WRITEBACK, 'no probe')}",
                    "use a kernel with kprobes or the raw tracepoint filemap_set_wb_err",
                )
            self._writeback = sources[Probe.WRITEBACK]
            self._has_fserror = Probe.FSERROR in sources
            self.helper = stack.enter_context(Helper())
            self.names = Names(self.helper, addresses=False)
            streams = [Stream.PROPOSED, *([Stream.FSERROR] if self._has_fserror else [])]
            self._groups = [
                ErrorGroup(
                    stream,
                    GroupFlags(),
                    self.marks,
                    self._attached,
                    _FileQueue(),
                    owners=self.names.owners,
                )
                for stream in streams
            ]
            self._lost_before = self._lost()
            self._missed_before = self._attached.missed()
            self._attached.watch(self, self.marks.devices())
            stack.callback(self._attached.watch, self, ())
            # the kernel's own group, which stands in for probes of metadata, is not needed
            self._source = stack.enter_context(Source(self._attached, {Probe.WRITEBACK}))
            self._following = stack.enter_context(
                Following(self, self.marks, self._attached, None, None)
            )
            self._hearing = hearing_of(self._attached)
            if self._hearing:
                stack.enter_context(self._hearing)
            self._closing = stack.pop_all()

    def events(self) -> Iterator[FsErrorEvent]:
        """Everything that waits now, without blocking."""
        ended = self._source.pump(self._groups)
        if ended:
            self._following.ended({marked.dev: marked for _, marked in ended}.values())
        self._following.follow()
        if self._hearing:
            self._hearing.look()
        self.collect()
        for group in self._groups:
            while group.queue:
                event = group.pop()
                if isinstance(event, FsErrorEvent) and self._is_wanted(group.stream, event):
                    yield event

    def collect(self) -> None:
        """Take the answers of the helper that are there."""
        self.helper.receive()
        self.names.collect()

    def _is_wanted(self, stream: Stream, event: FsErrorEvent) -> bool:
        origin = event.origin
        if event.handle is None or origin is None or origin.detail is None:
            return False  # the superblock's, or metadata
        by_iomap = self._has_fserror and origin.fstype == _ON_IOMAP
        if stream is Stream.PROPOSED:
            return origin.source == self._writeback and not by_iomap
        kind = origin.detail.kind
        return kind == ErrorKind.DIRECT_WRITE.name or (by_iomap and kind in _IOMAP_REPORTS)

    def wait(
        self, timeout: float | None, others: Mapping[int, int], *, events: bool = True
    ) -> frozenset[int]:
        """Block until there may be events or answers, or ``timeout`` seconds have passed.

        ``others`` maps further descriptors to their poll(2) masks; those that are ready are
        returned. Without ``events`` only answers of the helper count.
        """
        poll = select.poll()
        for fd in (*(self._source.filenos() if events else ()), self.helper.fileno()):
            poll.register(fd, select.POLLIN)
        if events:
            poll.register(self._following.fileno(), select.POLLPRI | select.POLLERR)
            if self._hearing:
                poll.register(self._hearing.fileno(), select.POLLIN)
        for fd, mask in others.items():
            poll.register(fd, mask)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
        if events and not ready.isdisjoint(self._source.filenos()):
            time.sleep(SETTLE_SECONDS)
        self._following.changed |= self._following.fileno() in ready
        return frozenset(ready & others.keys())

    def news(self) -> list[str]:
        """What has changed about the marks, or failed, since the last call, in words."""
        news = self._attached.notes + self._following.news
        self._attached.notes, self._following.news = [], []
        if self._hearing:
            news += self._hearing.news
            self._hearing.news = []
        return news + self.names.news()

    def gaps(self) -> tuple[Gap, ...]:
        """When no probe was run, also if that has just begun."""
        if self._hearing is None:
            return ()
        self._hearing.check()
        return tuple(self._hearing.gaps)

    def lost(self) -> int:
        """Errors that found the ring full so far; their files are unknown."""
        return self._lost() - self._lost_before

    def _lost(self) -> int:
        counts = self._attached.ring.lost()
        return sum(counts[probe] for probe in _PROBES)

    def missed(self) -> dict[str, int]:
        """Runs of each probe that the kernel skipped, where it counts them."""
        now = self._attached.missed()
        return {name: n - self._missed_before[name] for name, n in now.items()}

    def close(self) -> None:
        """Detach, unless the probes are shared, and release everything."""
        self._closing.close()
