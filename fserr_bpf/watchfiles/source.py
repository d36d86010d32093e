"""Errors of the data of files, on the file systems that globs lead to.

Two groups on one ring. What the file systems say of themselves (7.0 and later) has
position and length, but of writeback only XFS says it; the page cache sees everybody's
writeback, and is not asked for that of XFS then: no error comes twice.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from fserr_bpf.closing import Closing
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.errorgroup import ErrorGroup
from fserr_bpf.errors import AttachError
from fserr_bpf.following import Following
from fserr_bpf.live.armed import Armed
from fserr_bpf.live.mounts import MountTable
from fserr_bpf.marks import MarkedFilesystem, MarkTable
from fserr_bpf.model.event import FsErrorEvent, Fsid
from fserr_bpf.model.group import NotificationQueue, Result
from fserr_bpf.model.stream import Stream
from fserr_bpf.names.lookup import Names
from fserr_bpf.source import Source
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import Probe
from fserr_bpf.watchfiles.globs import Glob
from fserr_bpf.watchfiles.views import Views, inside

_PROBES = (Probe.WRITEBACK, Probe.FSERROR)
# 7.0 and later: iomap tells of writeback, and of the file systems here XFS is on iomap
_TELLS_ITSELF = "xfs"
_TOLD_BY_IT = frozenset({ErrorKind.WRITEBACK.name, ErrorKind.DATA_LOST.name})
_VIEWS_KEPT = 1024
SETTLE_SECONDS = 0.002
"""The kernel reports one failed request several times in a row: they are to be one event."""


class GlobMarks(MarkTable):
    """Marks on the file systems that globs lead to or that are mounted below, now or later."""

    def __init__(self, globs: Sequence[Glob]) -> None:
        self._globs = globs
        self._views = Views(())
        self._last: dict[tuple[int, int], Views] = {}
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
            if self.get(mount.major << 20 | mount.minor):
                self._last[mount.dev] = self._views
        while len(self._last) > _VIEWS_KEPT:
            del self._last[next(iter(self._last))]
        return new

    def views(self, dev: tuple[int, int]) -> Views:
        """The mounts when the file system of ``dev`` was last seen mounted.

        Unmounting writes data back: the errors of that come when it is gone.
        """
        return self._last.get(dev, self._views)

    def tops(self, dev: tuple[int, int]) -> Iterator[str]:
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
            if mount and not self.get(mount.major << 20 | mount.minor):
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
        seen = event.origin.side._replace(stack=()) if event.origin and event.origin.side else None
        return super().insert(fsid, (task, event.handle, event.error, seen), lambda: event, count)


class FileErrors(Closing):
    """Events of files' data, each with ``origin.side``, as they happen.

    ``armed``: probes of the streams proposed and fserror with details, attached before.
    Raises FserrError subclasses as ``Monitor`` does.
    """

    def __init__(
        self, globs: Sequence[Glob], *, armed: Armed | None = None, debug: bool = False
    ) -> None:
        with contextlib.ExitStack() as stack:
            self.marks = GlobMarks(globs)
            self._armed = armed or stack.enter_context(
                Armed([Stream.PROPOSED, Stream.FSERROR], debug=debug, detail=True)
            )
            sources = {a.probe: a.source for a in self._armed.attached}
            if Probe.WRITEBACK not in sources:
                raise AttachError(
                    "writeback errors cannot be seen on this kernel",
                    self._armed.failed.get(Probe.WRITEBACK, ""),
                )
            self._writeback = sources[Probe.WRITEBACK]
            self._told = Probe.FSERROR in sources
            self.names = stack.enter_context(Names(addresses=False))
            streams = [Stream.PROPOSED, *([Stream.FSERROR] if self._told else [])]
            self._groups = [
                ErrorGroup(stream, GroupFlags(), self.marks, self._armed, names=self.names)
                for stream in streams
            ]
            for group in self._groups:
                group.queue = _FileQueue()
            self._lost_before = self._lost()
            self._missed_before = self._armed.missed()
            self._armed.watch(self, self.marks.devices())
            stack.callback(self._armed.watch, self, ())
            # the kernel's own group, which stands in for probes of metadata, is not needed
            self._source = stack.enter_context(Source(self._armed, {Probe.WRITEBACK}))
            self._following = stack.enter_context(
                Following(self, self.marks, self._armed, None, None)
            )
            self._closing = stack.pop_all()

    def events(self) -> Iterator[FsErrorEvent]:
        """Everything that waits now, without blocking."""
        ended = self._source.pump(self._groups)
        if ended:
            self._following.ended({marked.dev: marked for _, marked in ended}.values())
        self._following.follow()
        self.names.collect()
        for group in self._groups:
            while group.queue:
                event = group.pop()
                if isinstance(event, FsErrorEvent) and self._is_wanted(group.stream, event):
                    yield event

    def _is_wanted(self, stream: Stream, event: FsErrorEvent) -> bool:
        origin = event.origin
        if event.handle is None or origin is None or origin.side is None:
            return False  # the superblock's, or metadata
        tells = self._told and origin.fstype == _TELLS_ITSELF
        if stream is Stream.PROPOSED:
            return origin.source == self._writeback and not tells
        kind = origin.side.kind
        return kind == ErrorKind.DIRECT_WRITE.name or (tells and kind in _TOLD_BY_IT)

    def wait(
        self, timeout: float | None, others: Mapping[int, int], *, events: bool = True
    ) -> frozenset[int]:
        """Block until there may be events or answers, or ``timeout`` seconds have passed.

        ``others`` maps further descriptors to their poll(2) masks; those that are ready are
        returned. Without ``events`` only answers of the helper count.
        """
        poll = select.poll()
        for fd in (*(self._source.filenos() if events else ()), self.names.fileno()):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        if events:
            poll.register(self._following.fileno(), select.POLLPRI | select.POLLERR)
        for fd, mask in others.items():
            poll.register(fd, mask)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
        if events and not ready.isdisjoint(self._source.filenos()):
            time.sleep(SETTLE_SECONDS)
        self._following.changed |= self._following.fileno() in ready
        return frozenset(ready & others.keys())

    def news(self) -> list[str]:
        """What has changed about the marks, or failed, since the last call, in words."""
        news, self._following.news = self._following.news, []
        return news + self.names.news()

    def lost(self) -> int:
        """Errors that found the ring full so far; nobody knows of which files."""
        return self._lost() - self._lost_before

    def _lost(self) -> int:
        counts = self._armed.ring.lost()
        return sum(counts[probe] for probe in _PROBES)

    def missed(self) -> dict[str, int]:
        """Runs of each probe that the kernel skipped, where it counts them."""
        now = self._armed.missed()
        return {name: n - self._missed_before[name] for name, n in now.items()}

    def close(self) -> None:
        """Detach, unless the probes are shared, and release everything."""
        self._closing.close()
