"""A client's ``fanotify_mark(2)`` as values: what is to be done, and what came of it.

They go between the supervisor and the process that does it, as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fserr_bpf.model.event import Fsid
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.inode import InodeId


class MarkJob(NamedTuple):
    """One mark of a shadow, to be made as the task ``tid`` would have made it.

    ``call`` is the id of its notification: while that waits, everything that is looked up
    about the task is its own. ``flags`` and ``mask`` are for the shadow, ``lookup`` are those
    flags that say how the path is resolved; the path is at the address ``path`` of the task's
    memory, 0 for NULL, below ``dirfd``. ``pathless`` calls look at neither.

    With ``locate`` it is told what the mark is on; it fails where that cannot be found out and
    is ``needed``. An object on one of ``own_devs`` may be a descriptor of an emulated group: it
    is not marked, but reported, unless a descriptor to be marked instead comes with the job
    (``instead``). A kernel's group to be marked as well comes with it too (``kernel``). Of a
    call that is the kernel's only the path is read, for people (``names``).
    """

    call: int
    tid: int
    flags: int
    mask: int
    lookup: int
    dirfd: int
    path: int
    pathless: bool
    locate: bool
    needed: bool
    kernel: bool
    instead: bool
    names: bool
    own_devs: Sequence[int]

    def to_json(self) -> dict[str, Any]:
        """For the process that does it."""
        return {"job": self}

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> MarkJob:
        """What `to_json` was made from."""
        return cls(*message["job"])


class MarkedObject(NamedTuple):
    """What a mark is on: a superblock (``dev`` is its s_dev), and the inode that the path leads to.

    ``form`` is the type of the file system's handles, None if their layout is not known.
    ``inode`` is None where the layout of the handle is not known.
    """

    dev: Dev
    fsid: Fsid
    form: int | None
    inode: InodeId | None


class MarkAnswer(NamedTuple):
    """What came of a `MarkJob`.

    ``error`` is the errno that the client is to get, 0 for none. ``trouble`` says what lacks if
    it is ours, not the client's. ``group`` is the identity of the object where it may be a group of
    ours and nothing was done. ``name`` is the path, if it was read. ``last``: the process may be
    where it should not, and is not to be used again.
    """

    error: int = 0
    trouble: str = ""
    group: tuple[int, int] | None = None
    marked: MarkedObject | None = None
    name: bytes | None = None
    last: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the supervisor."""
        name = None if self.name is None else os.fsdecode(self.name)
        return {"answer": self._replace(name=None), "name": name}

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> MarkAnswer:
        """What `to_json` was made from. Raises KeyError, TypeError or ValueError for others."""
        error, trouble, group, marked, _, last = message["answer"]
        if group is not None:
            dev, ino = group
            group = dev, ino
        if marked is not None:
            dev, fsid, form, inode = marked
            inode = None if inode is None else InodeId(*inode)
            marked = MarkedObject(Dev(*dev), Fsid(*fsid), form, inode)
        name = message["name"]
        return cls(error, trouble, group, marked, None if name is None else os.fsencode(name), last)
