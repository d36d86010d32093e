"""ext4 on kernels without kprobes: the kernel's own events, with a place and a task.

The tracepoint ext4_error knows function and line but neither error nor inode; the
kernel's own FAN_FS_ERROR knows error and inode but not the place. Joined here.
Never used where kprobes are, and never to compare with the kernel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from fserr_bpf.closing import Closing
from fserr_bpf.codec.entry import Entry
from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.fanotify import FAN_REPORT_TID, FAN_UNLIMITED_QUEUE

SOURCE = "fanotify:FAN_FS_ERROR"
TRACES_KEPT = 64
_TRACE_LIFE_NS = 1_000_000_000


class KernelGroup(Closing):
    """A real group whose events are joined with the tracepoint's records.

    ``every`` marks all file systems (7.x reports for more than ext4), else ext4
    only. ``thread``: events carry the thread's number. Raises MarkError where the
    kernel does not know FAN_FS_ERROR.
    """

    def __init__(self, *, every: bool, thread: bool = False) -> None:
        self._every = every
        self._thread = thread
        self._group = FanotifyGroup(FAN_UNLIMITED_QUEUE | (FAN_REPORT_TID if thread else 0))
        self._traces: dict[tuple[Dev, int], deque[Entry]] = {}

    def fileno(self) -> int:
        """Readable while the kernel has events; who marks a path of another process needs it."""
        return self._group.fileno()

    def mark(self, marked: MarkedFilesystem) -> None:
        """Ask the kernel for the errors of a file system, if it reports any."""
        if self._every or marked.driver == "ext4":
            self._group.mark(marked.path)

    def read(self) -> Iterator[FsErrorEvent]:
        """The kernel's events that wait."""
        while data := self._group.read():
            for event in Decoder().feed(data):
                if isinstance(event, FsErrorEvent):
                    yield event

    def add_trace(self, entry: Entry) -> None:
        """Keep a ring entry of the tracepoint until its event is read."""
        record = entry.record
        key = (entry.dev, record.tid if self._thread else record.tgid)
        self._traces.setdefault(key, deque(maxlen=TRACES_KEPT)).append(entry)

    def take_trace(self, dev: Dev, event: FsErrorEvent) -> Entry | None:
        """The first entry of the event's task since its last event.

        A hint only: an error of a block group fires the tracepoint without an
        event, errors of the journal are events without the tracepoint.
        """
        traces = self._traces.get((dev, event.pid))
        if not traces:
            return None
        first = traces[0]
        for _ in range(min(event.error_count, len(traces))):
            traces.popleft()
        return first

    def forget(self, now_ns: int) -> None:
        """Drop the entries for which no event came; ``now_ns`` is CLOCK_MONOTONIC."""
        for key, traces in list(self._traces.items()):
            while traces and traces[0].record.time_ns < now_ns - _TRACE_LIFE_NS:
                traces.popleft()
            if not traces:
                del self._traces[key]

    def close(self) -> None:
        """Close the real group."""
        self._group.close()
