"""Names for the events of one monitor: what is known at once, the rest asked for.

Nothing here may stop an event. A step that fails leaves its keys empty and is told once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from fserr_bpf.closing import Closing
from fserr_bpf.live.mounts import MountTable
from fserr_bpf.marks import MarkedFilesystem
from fserr_bpf.model.event import FileHandle, FsErrorEvent, Origin, PathState, Side
from fserr_bpf.names.cgroups import tracks_writeback
from fserr_bpf.names.helper import MESSAGE_SIZE, Helper
from fserr_bpf.names.paths import Path
from fserr_bpf.names.volumes import Volume, volume_of
from fserr_bpf.symbolize.running import RunningKernel

_ADDRESSES = "portable addresses"
_HELPER = "helper process for paths"
_ROOT_CGROUP = 1  # KERNFS root, fs/kernfs/dir.c
_KEPT = 4096  # answers; the oldest go first


class Names(Closing):
    """UUID, label and mount points of each mark, paths of files and cgroups.

    ``owners``: this kernel knows whose dirty pages an inode has. ``fileno()`` is readable
    when ``collect()`` has something to do. Without ``addresses`` those of the kernel stay
    as they are.
    """

    def __init__(self, *, addresses: bool = True) -> None:
        self._volumes: dict[tuple[int, int], Volume] = {}
        self._mount_points: dict[tuple[int, int], tuple[str, ...]] = {}
        self._known: dict[tuple[Any, ...], Path] = {}
        self._located: list[tuple[int, Path]] = []
        self._tickets = 0
        self._news: list[str] = []
        self._failed: set[str] = set()
        self._helper: Helper | None = None
        self._humble = False
        self.owners = False
        with self._guarded("owners of what was written"):
            self.owners = tracks_writeback()
        self._kernel: RunningKernel | None = None
        with self._guarded(_ADDRESSES):
            self._kernel = RunningKernel() if addresses else None
            if self._kernel and self._kernel.hidden:
                self._news.append(self._kernel.hidden)
        with self._guarded(_HELPER):
            self._helper = Helper()

    def fileno(self) -> int | None:
        """The descriptor to poll for POLLIN; None when there is nothing to wait for."""
        return self._helper.fileno() if self._helper else None

    def become(self, user: str | None) -> None:
        """The helper gives up its rights, as ``drop()`` for ``user``; at the latest when asked."""
        with self._guarded(_HELPER):
            if self._helper and not self._humble:
                self._humble = self._helper.ask({"what": "user", "user": user})

    def see(self, marks: Iterable[MarkedFilesystem], table: MountTable) -> None:
        """The mount table has changed, or the marks have."""
        devices = {(m.dev >> 20, m.dev & 0xFFFFF): m.fstype for m in marks}
        for dev in self._volumes.keys() - devices.keys():
            del self._volumes[dev]
        mounts: dict[tuple[int, int], list[str]] = {}
        for mount in table:
            mounts.setdefault(mount.dev, []).append(mount.mount_point)
            if (dev := mount.dev) in devices and dev not in self._volumes:
                self._volumes[dev] = Volume()
                with self._guarded("UUID and label of a file system"):
                    self._volumes[dev] = volume_of(mount.source, mount.fstype, dev)
        self._mount_points = {dev: tuple(mounts.get(dev, ())) for dev in devices}

    def complete(self, event: FsErrorEvent) -> FsErrorEvent:
        """``event`` with the names that are known; asks for those that are not."""
        origin = event.origin
        if origin is None or origin.side is None:
            return event
        side = origin.side
        with self._guarded(_ADDRESSES):
            if self._kernel:
                origin = origin._replace(address=self._kernel.portable(origin.failaddr))
        with self._guarded("names of file systems"):
            uuid, label = self._volumes.get(origin.dev, Volume())
            mount_points = self._mount_points.get(origin.dev, ())
            side = side._replace(uuid=uuid, label=label, mount_points=mount_points)
        with self._guarded("paths of files"):
            side = self._with_path(event, origin, side)
        with self._guarded("paths of cgroups"):
            side = self._with_cgroup(side)
        return event._replace(origin=origin._replace(side=side))

    def locate(self, event: FsErrorEvent, below: Iterable[str] = ()) -> int | None:
        """Ask where the file of ``event`` is now, whatever was found for it before.

        Returns the number under which ``located()`` will have the answer, or None when
        nobody can be asked. Where the kernel knows no way to the file, the folders ``below``
        are searched for it.
        """
        origin = event.origin
        if event.handle is None or origin is None or self._helper is None:
            return None
        self._tickets += 1
        question = _question(event.handle, origin, "")
        question |= {"ticket": self._tickets, "below": list(below)}
        if len(json.dumps(question)) > MESSAGE_SIZE:
            question["below"] = []
        with self._guarded(_HELPER):
            self.become(None)
            if self._humble and self._helper.ask(question):
                return self._tickets
        return None

    def located(self) -> list[tuple[int, Path]]:
        """The answers to ``locate()`` that ``collect()`` has taken since the last call."""
        located, self._located = self._located, []
        return located

    def _with_path(self, event: FsErrorEvent, origin: Origin, side: Side) -> Side:
        if event.handle is None or side.path_state == PathState.NOT_ASKED:
            return side
        name = side.name if side.name_state == "whole" else ""
        question = _question(event.handle, origin, name)
        found = self._find(("path", origin.dev, *event.handle), question)
        return side._replace(path=found.path, path_state=found.state)

    def _with_cgroup(self, side: Side) -> Side:
        if not side.cgroup_id:
            return side
        if side.cgroup_id == _ROOT_CGROUP:
            return side._replace(cgroup="/")
        question = {"what": "cgroup", "id": side.cgroup_id}
        return side._replace(cgroup=self._find(("cgroup", side.cgroup_id), question).path)

    def _find(self, key: tuple[Any, ...], question: dict[str, Any]) -> Path:
        if key not in self._known:
            if self._helper is None:
                return Path("", PathState.UNKNOWN)
            self.become(None)
            if self._humble and self._helper.ask(question):
                self._remember(key, Path("", PathState.PENDING))
        return self._known.get(key, Path("", PathState.UNKNOWN))

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
                for answer in self._helper.answers():
                    self._take(answer)
            except BaseException:
                self._end_helper()
                raise

    def _take(self, answer: dict[str, Any]) -> None:
        if answer["what"] == "cgroup":
            self._remember(("cgroup", answer["id"]), Path(answer["path"], PathState.UNKNOWN))
            return
        major, minor = answer["dev"]
        handle = answer["handle_type"], bytes.fromhex(answer["f_handle"])
        found = Path(answer["path"], PathState(answer["state"]))
        if "ticket" in answer:
            self._located.append((answer["ticket"], found))
            return
        self._remember(("path", (major, minor), *handle), found)
        place = found.path or answer.get("reason", "no path")
        self._news.append(f"ino {answer['ino']} on {answer['device']}: {place} ({found.state})")

    def _end_helper(self) -> None:
        if self._helper:
            self._helper.close()
            self._helper = None

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Whatever happens inside is told, once, and the event goes on."""
        try:
            yield
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                reason = str(error) or type(error).__name__
                self._news.append(f"no {what} ({reason}); the events go on without")

    def news(self) -> list[str]:
        """What was found or failed since the last call, in words."""
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """End the helper."""
        self._end_helper()


def _question(handle: FileHandle, origin: Origin, name: str) -> dict[str, Any]:
    return {
        "what": "path",
        "dev": origin.dev,
        "handle_type": handle.handle_type,
        "f_handle": handle.f_handle.hex(),
        "ino": origin.ino,
        "device": origin.device,
        "mount_point": origin.mount_point,
        "name": name,
    }


def clones(marks: Iterable[MarkedFilesystem]) -> Iterator[str]:
    """In words, the marked file systems that one fsid stands for, as clones of an ext4 do."""
    by_fsid: dict[tuple[int, int], list[MarkedFilesystem]] = {}
    for marked in marks:
        by_fsid.setdefault(marked.fsid, []).append(marked)
    for group in by_fsid.values():
        if len(group) > 1:
            places = ", ".join(f"{m.mount_point} ({m.device})" for m in group)
            yield f"one fsid {group[0].fsid} for {places}: events do not tell them apart"
