"""Errors of one cgroup and those below it, by the ids that the probe took at that moment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fserr_bpf.errors import UsageError
from fserr_bpf.kernel.cgroups import ROOT_ID, hierarchies, owns_writeback
from fserr_bpf.marks.rules import Answer
from fserr_bpf.uapi.entry import PlaceRecord
from fserr_bpf.uapi.record import Flag, Probe, Record

# SB_I_CGROUPWB: where others write, the pages are the root's
_TRACKING = ("ext4", "xfs", "btrfs", "f2fs")
_IN_INTERRUPT = int(Flag.IN_INTERRUPT)
# how container runtimes call the cgroup of a container, by their name or id
_RUNTIMES = ("docker-{}.scope", "libpod-{}.scope", "cri-containerd-{}.scope", "crio-{}.scope")
_NAMED = ("{}", "machine-{}.scope", "lxc.payload.{}", "lxc.payload-{}")
_SHORT_ID = re.compile(r"[0-9a-f]{12,63}")


class CgroupFilter:
    """A cgroup, by its id: a later one of the same name is another. ``path`` is its folder.

    ``owners``: this kernel knows whose dirty pages an inode has. A cgroup without the
    controllers for that owns none: what its processes write is that of one above.
    """

    def __init__(self, path: str, *, owners: bool) -> None:
        self.path = path
        self.number = os.stat(path).st_ino
        self._owners = owners and owns_writeback(path)

    def owns(self, record: Record, place: PlaceRecord | None, fstype: str) -> Answer:
        """Whether the error is of the cgroup or of one below it.

        That is the cgroup of the inode's writeback where the kernel keeps it, else that of
        the task, which in an interrupt or a worker of the kernel's is not the culprit.
        """
        if place is None:
            return Answer.UNKNOWN
        if place.inode_cgroups and self._owners and fstype in _TRACKING:
            above = place.inode_cgroups
        elif record.flags & _IN_INTERRUPT or record.probe == Probe.FSERROR:
            return Answer.UNKNOWN
        else:
            above = place.task_cgroups
        if self.number in above:
            return Answer.YES
        return Answer.NO if ROOT_ID in above else Answer.UNKNOWN


def find_cgroup(path: str) -> str:
    """The folder of the cgroup ``path``.

    That is below the root of the hierarchy, or absolute where it is mounted. Raises UsageError.
    """
    tops = list(_tops())
    if not tops:
        raise UsageError("no cgroup2 hierarchy is mounted", "mount -t cgroup2 none DIRECTORY")
    inside = [top for top in tops if os.path.normpath(path).startswith(f"{top}/")]
    for folder in [path] if inside else [os.path.join(top, path.strip("/")) for top in tops]:
        if os.path.exists(os.path.join(folder, "cgroup.procs")):
            return os.path.normpath(folder)
    raise UsageError(f"{path}: no such cgroup", "give a path as /proc/PID/cgroup has it behind 0::")


def find_container(name: str) -> str:
    """The folder of the cgroup of the container ``name``.

    Or of the one whose id begins with it, 12 digits or more. Raises UsageError if there is
    none or more than one.
    """
    names = {form.format(escaped) for form in _NAMED for escaped in (name, _escaped(name))}
    names |= {form.format(name) for form in _RUNTIMES}
    found: list[str] = []
    for top in _tops():
        for folder, folders, _ in os.walk(top):
            mine = [f for f in folders if f in names or _begins(f, name)]
            found += [os.path.join(folder, f) for f in mine]
            # what a container has inside is part of it
            folders[:] = [f for f in folders if f not in mine]
        break
    if not found:
        raise UsageError(
            f"no cgroup of a container {name}", "give its id, or its cgroup with --cgroup"
        )
    if len(found) > 1:
        raise UsageError(
            f"several cgroups for a container {name}: {', '.join(sorted(found))}",
            "give one of them with --cgroup",
        )
    return found[0]


def _tops() -> Iterator[str]:
    return (mount.mount_point for mount in hierarchies())


def _escaped(name: str) -> str:
    """As systemd writes a name into that of a unit, see systemd-escape(1)."""
    return "".join(c if c.isalnum() or c in ":_." else f"\\x{ord(c):02x}" for c in name)


def _begins(folder: str, name: str) -> bool:
    if not _SHORT_ID.fullmatch(name):
        return False
    starts = ["", *(form.partition("{}")[0] for form in _RUNTIMES)]
    rest = (folder.removeprefix(start) for start in starts if folder.startswith(start))
    return any(re.fullmatch(rf"{name}[0-9a-f]{{1,52}}(\.scope)?", part) for part in rest)
