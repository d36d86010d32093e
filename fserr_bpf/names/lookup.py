"""Names for the events of one monitor: what is known at once, the rest asked for.

Nothing here may stop an event. A step that fails leaves its keys empty, with one message.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fserr_bpf.children.channel import MESSAGE_SIZE
from fserr_bpf.helper.client import Answer, Helper
from fserr_bpf.helper.paths import Path
from fserr_bpf.helper.questions import Kind, about
from fserr_bpf.kernel.blockdev import kernel_name, number_of
from fserr_bpf.kernel.cgroups import ROOT_ID, tracks_writeback
from fserr_bpf.kernel.mounts import MountTable
from fserr_bpf.marks.table import MarkedFilesystem
from fserr_bpf.model.event import Detail, FileHandle, FsErrorEvent, Fsid, Origin, PathState
from fserr_bpf.names.volumes import Volume, volume_of
from fserr_bpf.symbolize.running import RunningKernel
from fserr_bpf.uapi.dev import Dev

_ADDRESSES = "portable addresses"
_HELPER = "helper process for paths"
_MOST_FOLDERS = MESSAGE_SIZE // 2  # in a question; the rest of it is a path at most
_KEPT = 4096  # answers; the oldest go first


class _Asked(NamedTuple):
    """A question about an event's file or cgroup that is open. ``key`` is that of `_known`."""

    key: tuple[Any, ...]
    about: str = ""
    located: bool = False


class Names:
    """UUID, label and mount points of each mark, paths of files and cgroups.

    ``collect()`` has something to do when ``helper`` has received something. ``owners``: this
    kernel knows whose dirty pages an inode has. Without ``addresses`` those of the kernel stay
    as they are.
    """

    def __init__(self, helper: Helper, *, addresses: bool = True) -> None:
        self._volumes: dict[Dev, Volume] = {}
        self._mount_points: dict[Dev, tuple[str, ...]] = {}
        self._kernel_devices: dict[Dev, str] = {}
        self._known: dict[tuple[Any, ...], Path] = {}
        self._asked: dict[int, _Asked] = {}
        self._located: list[tuple[int, Path]] = []
        self._news: list[str] = []
        self._failed: set[str] = set()
        self._helper: Helper | None = helper
        self.owners = False
        with self._guarded("owners of what was written"):
            self.owners = tracks_writeback()
        self._kernel: RunningKernel | None = None
        with self._guarded(_ADDRESSES):
            self._kernel = RunningKernel() if addresses else None
            if self._kernel and self._kernel.hidden:
                self._news.append(self._kernel.hidden)

    def see(self, marks: Iterable[MarkedFilesystem], table: MountTable) -> None:
        """The mount table has changed, or the marks have."""
        devices = {m.dev: m.driver for m in marks}
        for dev in self._volumes.keys() - devices.keys():
            del self._volumes[dev], self._kernel_devices[dev]
        mounts: dict[Dev, list[str]] = {}
        for mount in table:
            mounts.setdefault(mount.dev, []).append(mount.mount_point)
            if (dev := mount.dev) in devices and dev not in self._volumes:
                self._volumes[dev] = Volume()
                block = dev if dev.major else number_of(mount.source)
                self._kernel_devices[dev] = kernel_name(block) if block else ""
                with self._guarded("UUID and label of a file system"):
                    self._volumes[dev] = volume_of(mount.source, devices[dev], dev)
        self._mount_points = {dev: tuple(mounts.get(dev, ())) for dev in devices}

    def complete(self, event: FsErrorEvent) -> FsErrorEvent:
        """``event`` with the names that are known; asks for those that are not."""
        origin = event.origin
        if origin is None or origin.detail is None:
            return event
        detail = origin.detail
        with self._guarded(_ADDRESSES):
            if self._kernel:
                origin = origin._replace(address=self._kernel.portable(origin.failaddr))
        with self._guarded("names of file systems"):
            uuid, label = self._volumes.get(origin.dev, Volume())
            mount_points = self._mount_points.get(origin.dev, ())
            detail = detail._replace(
                uuid=uuid,
                label=label,
                mount_points=mount_points,
                kernel_device=self._kernel_devices.get(origin.dev, ""),
            )
        with self._guarded("paths of files"):
            detail = self._with_path(event, origin, detail)
        with self._guarded("paths of cgroups"):
            detail = self._with_cgroup(detail)
        return event._replace(origin=origin._replace(detail=detail))

    def locate(self, event: FsErrorEvent, below: Iterable[str] = ()) -> int | None:
        """Ask where the file of ``event`` is now, whatever was found for it before.

        Returns the number under which ``located()`` will have the answer, or None when
        nobody can be asked. Where the kernel knows no way to the file, the folders ``below``
        are searched for it.
        """
        origin = event.origin
        if event.handle is None or origin is None:
            return None
        folders = list(below)
        if len(json.dumps(folders)) > _MOST_FOLDERS:
            folders = []
        question = _question(event.handle, origin, below=folders)
        return self._ask(Kind.PATH, question, _Asked((), located=True))

    def located(self) -> list[tuple[int, Path]]:
        """The answers to ``locate()`` that ``collect()`` has taken since the last call."""
        located, self._located = self._located, []
        return located

    def _with_path(self, event: FsErrorEvent, origin: Origin, detail: Detail) -> Detail:
        if event.handle is None or detail.path_state == PathState.NOT_ASKED:
            return detail
        name = detail.name if detail.name_state == "whole" else ""
        question = _question(event.handle, origin, name)
        asked = _Asked(("path", origin.dev, *event.handle), f"ino {origin.ino} on {origin.device}")
        found = self._find(Kind.PATH, question, asked)
        return detail._replace(path=found.path, path_state=found.state)

    def _with_cgroup(self, detail: Detail) -> Detail:
        if not detail.cgroup_id:
            return detail
        if detail.cgroup_id == ROOT_ID:
            return detail._replace(cgroup="/")
        asked = _Asked(("cgroup", detail.cgroup_id))
        found = self._find(Kind.CGROUP, {"id": detail.cgroup_id}, asked)
        return detail._replace(cgroup=found.path)

    def _find(self, kind: Kind, question: dict[str, Any], asked: _Asked) -> Path:
        if asked.key not in self._known and self._ask(kind, question, asked) is not None:
            self._remember(asked.key, Path("", PathState.PENDING))
        return self._known.get(asked.key, Path("", PathState.UNKNOWN))

    def _ask(self, kind: Kind, question: dict[str, Any], asked: _Asked) -> int | None:
        number = None
        with self._guarded(_HELPER):
            if self._helper:
                number = self._helper.ask(kind, question)
        if number is not None:
            self._asked[number] = asked
        return number

    def _remember(self, key: tuple[Any, ...], path: Path) -> None:
        self._known[key] = path
        if len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]

    def collect(self) -> None:
        """Take what the helper has found: for the events that come from now on."""
        with self._guarded(_HELPER):
            if self._helper is None:
                return
            try:
                for answer in self._helper.answers(Kind.CGROUP):
                    path = Path(answer.found or "", PathState.UNKNOWN)
                    self._remember(self._asked.pop(answer.number).key, path)
                for answer in self._helper.answers(Kind.PATH):
                    self._take_path(answer)
                if self._helper.ended:
                    raise RuntimeError(self._helper.ended)
            except BaseException:
                self._helper = None  # it is asked nothing more
                raise

    def _take_path(self, answer: Answer) -> None:
        asked = self._asked.pop(answer.number)
        path, state = answer.found or ("", PathState.UNKNOWN)
        found = Path(path, PathState(state))
        if asked.located:
            self._located.append((answer.number, found))
            return
        self._remember(asked.key, found)
        place = found.path or answer.reason or "no path"
        self._news.append(f"{asked.about}: {place} ({found.state})")

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """A failure inside becomes a message, once, and the event goes on."""
        try:
            yield
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                reason = str(error) or type(error).__name__
                self._news.append(f"no {what} ({reason}); events are delivered without")

    def news(self) -> list[str]:
        """Messages of what was found or failed since the last call."""
        news, self._news = self._news, []
        return news


def _question(
    handle: FileHandle, origin: Origin, name: str = "", below: Sequence[str] = ()
) -> dict[str, Any]:
    """``below`` are folders to be searched, see `helper.paths`."""
    question = about(origin.mount_point, origin.dev, handle)
    return question | {"ino": origin.ino, "name": name, "below": below}


def clones(marks: Iterable[MarkedFilesystem]) -> Iterator[str]:
    """In words, the marked file systems that one fsid stands for, as clones of an ext4 do."""
    by_fsid: dict[Fsid, list[MarkedFilesystem]] = {}
    for marked in marks:
        by_fsid.setdefault(marked.fsid, []).append(marked)
    for group in by_fsid.values():
        if len(group) > 1:
            places = ", ".join(f"{m.mount_point} ({m.device})" for m in group)
            yield f"{places} have one fsid, {group[0].fsid}: raw events do not distinguish them"
