"""The marks of a group kept true to the mount table, and what there is to tell about it."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator

from fserr_bpf.closing import Closing
from fserr_bpf.errors import FserrError
from fserr_bpf.group.elsewhere import Elsewhere
from fserr_bpf.group.kernelgroup import KernelGroup
from fserr_bpf.kernel.mountnamespaces import mounts_elsewhere
from fserr_bpf.kernel.mounts import MountTable, MountWatch, read_mounts
from fserr_bpf.marks.followed import followed_mounts
from fserr_bpf.marks.table import MarkedFilesystem, MarkTable, gone
from fserr_bpf.names.lookup import Names, clones
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.record import Probe


class Following(Closing):
    """Ends marks, and makes those of file systems mounted later if the table follows.

    ``owner`` is whom ``attached`` watches for. ``look`` gets the mount table whenever it has
    been read. ``changed`` says that it is to be read, whoever saw it; ``fileno()`` is to be
    polled for POLLPRI | POLLERR, which takes the notice. ``elsewhere``: also follow what is
    mounted in other namespaces; its ``fileno()`` is to be polled too.
    """

    def __init__(
        self,
        owner: object,
        marks: MarkTable,
        attached: AttachedProbes,
        kernel_group: KernelGroup | None,
        names: Names | None,
        *,
        elsewhere: Elsewhere | None = None,
        look: Callable[[MountTable], None] | None = None,
    ) -> None:
        self._owner, self._marks, self._attached = owner, marks, attached
        self._kernel_group, self._names, self._look_too = kernel_group, names, look
        self._elsewhere = elsewhere
        self._ends_by_table = all(a.probe != Probe.SB_DELETE for a in attached.probes)
        self._ends_lost = attached.ring.lost()[Probe.SB_DELETE]
        self._clones: set[str] = set()
        self._skipped: set[str] = set()  # as it was told
        self.news: list[str] = []
        self.changed = True
        self._ends_missed = True  # what was unmounted before the probes knew its device
        self._mounts = MountWatch()
        if marks.follows and not elsewhere:
            self.news += _left_out(read_mounts())
        self._look(self._whole(read_mounts(), changed=False))

    def fileno(self) -> int:
        """The descriptor that tells of changes."""
        return self._mounts.fileno()

    def follow(self) -> None:
        """Read the mount table if it has changed."""
        ends_lost = self._attached.ring.lost()[Probe.SB_DELETE]
        if ends_lost > self._ends_lost:  # then the mount table must say which marks ended
            self._ends_lost = ends_lost
            self.changed = self._ends_by_table = True
        poll = select.poll()
        poll.register(self._mounts.fileno(), select.POLLPRI | select.POLLERR)
        changed = bool(poll.poll(0)) or self.changed
        if not changed and not (self._elsewhere and self._elsewhere.is_due()):
            return
        self.changed = False
        table = self._whole(self._mounts.changed(), changed=changed)
        if self._ends_by_table or self._ends_missed:
            self._ends_missed = False
            self.ended(self._marks.end_unmounted(table))
        if over := self._marks.end_mounts(table):
            self.news += [gone(part) for part in over]
            self._attached.watch(self._owner, self._marks.devices())
        if self._marks.follows:
            self._follow(table)
        self._look(table)

    def _whole(self, own: MountTable, *, changed: bool) -> MountTable:
        return self._elsewhere.together(own, changed=changed) if self._elsewhere else own

    def ended(self, marks: Iterable[MarkedFilesystem]) -> None:
        """Marks have ended: their file systems were unmounted."""
        for marked in marks:
            self.news.append(f"no longer watching {marked.mount_point}: unmounted")
        self._attached.watch(self._owner, self._marks.devices())

    def _follow(self, table: MountTable) -> None:
        new = self._marks.follow(table)
        self._attached.watch(self._owner, self._marks.devices())
        for marked in new:
            self.news.append(f"now watching {marked.mount_point} ({marked.fstype})")
            try:
                if self._kernel_group:
                    self._kernel_group.mark(marked)
            except FserrError as error:  # unmounted again, or the right to mark was given up
                self.news.append(f"cannot watch ext4 errors: {error}")
            if marked.driver in self._attached.unloaded:
                words = f"module {marked.driver} was loaded after start; restart to watch it"
                self.news.append(words)
        skipped = set(self._marks.skipped.values())
        self.news += [f"not watching {why}" for why in sorted(skipped - self._skipped)]
        self._skipped = skipped

    def _look(self, table: MountTable) -> None:
        if self._names:
            self._names.see(self._marks, table)
        found = set(clones(self._marks))
        self.news += sorted(found - self._clones)
        self._clones = found
        if self._look_too:
            self._look_too(table)

    def close(self) -> None:
        """Stop watching the mount table."""
        self._mounts.close()


def _left_out(own: MountTable) -> Iterator[str]:
    """In words, how many file systems are mounted in other mount namespaces alone."""
    found = {mount.dev for mount in followed_mounts(mounts_elsewhere())}
    if number := len(found - {mount.dev for mount in own}):
        what = "file system" if number == 1 else "file systems"
        verb = "is" if number == 1 else "are"
        yield (
            f"{number} {what} in other mount namespaces {verb} not watched; add --all-namespaces"
        )
