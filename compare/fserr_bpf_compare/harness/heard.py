"""What the probes hear of one file system in the stream ``proposed``, error by error.

The queue of a group merges errors, and a merged event names the place of the first. To hold
events against the kernel's log, each error has to keep its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from fserr_bpf.closing import Closing
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group.errorgroup import ErrorGroup
from fserr_bpf.group.source import Source
from fserr_bpf.kernel.kallsyms import Kallsyms
from fserr_bpf.marks.table import MarkTable
from fserr_bpf.model.event import FsErrorEvent, Fsid, Origin
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.queue import NotificationQueue, Result
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes

# as kernel 7 calls who says what `fserr_bpf_compare.verdict.unheard` knows by its older name
_RENAMED = {"iomap_finish_ioend_buffered_write": "iomap_finish_ioend"}


class _Apart(NotificationQueue):
    """A queue in which nothing merges: every report is of a task of its own."""

    def insert(
        self, fsid: Fsid, task: object, make: Callable[[], FsErrorEvent], count: int = 1
    ) -> Result:
        return super().insert(fsid, (task, self.inserted), make, count)


class Heard(Closing):
    """Events of the file system at ``path`` from now on; ``names`` is shared by many.

    Raises FserrError subclasses as `Monitor` does.
    """

    def __init__(self, attached: AttachedProbes, path: str, names: Kallsyms) -> None:
        self.functions = Counter[str]()
        self._names = names
        self._exact = attached.kernel.kprobes
        with ExitStack() as stack:
            marks = MarkTable([Mark.filesystem(path)])
            self._group = ErrorGroup(
                Stream.PROPOSED, GroupFlags.of(0), marks, attached, _Apart(max_events=None)
            )
            attached.watch(self, marks.devices())
            stack.callback(attached.watch, self, ())
            self._source = stack.enter_context(Source(attached, self._group.wanted))
            if self._source.kernel_group:
                for marked in marks:
                    self._source.kernel_group.mark(marked)
            self._closing = stack.pop_all()

    def meanwhile(self) -> Mapping[int, Callable[[], object]]:
        """What to call when a descriptor is readable: the kernel's own group merges too."""
        return dict.fromkeys(self._source.filenos(), self.pump)

    def pump(self) -> None:
        """Take in what has happened: errors by function in ``functions``.

        "" has those whose own function is not known: without kprobes the kernel's group has
        merged some of ext4, and tracepoints name a caller of what the log names.
        """
        self._source.pump([self._group])
        while self._group.queue:
            event = self._group.pop()
            if isinstance(event, FsErrorEvent) and event.origin:
                self._add(event.origin, event.error_count)

    def _add(self, origin: Origin, count: int) -> None:
        function = origin.function
        # ext4 and btrfs name it themselves, XFS a tag beside the caller that is in the log
        named = origin.fstype != "xfs" and origin.line and function
        if origin.failaddr and not named:
            function = self._names.function(origin.failaddr) or function
        function = function.partition(".")[0]  # the compiler may have split or cloned it
        function = _RENAMED.get(function, function)
        known = count
        if not self._exact:
            known = 1 if origin.line else 0
        for name, errors in ((function, known), ("", count - known)):
            if errors:
                self.functions[name] += errors

    def close(self) -> None:
        """Stop watching; the probes are their owner's."""
        self._closing.close()
