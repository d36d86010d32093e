"""What a task waits for with epoll(7), moved from one open file to another.

An epoll instance knows an open file and the number that it had; who changes what is behind a
number leaves the instance with the old file. The instance can be changed through any copy of its
descriptor, by a process in which the file has that number: a forked one is free to use any.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from struct import Struct
from typing import NamedTuple

from fserr_bpf.kernel import procfs
from fserr_bpf.kernel.libc import check, libc
from fserr_bpf.tasks.descriptors import copy_descriptor, numbers, same_in_epoll

_CTL_ADD, _CTL_DEL = 1, 2
_EVENT = Struct("<IQ")  # struct epoll_event of x86-64, which is packed
_LINK = "anon_inode:[eventpoll]"
# ep_show_fdinfo() in fs/eventpoll.c
_WAITED = re.compile(rb"^tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)", re.M)


class Interest(NamedTuple):
    """The number of the file in an epoll instance, what is waited for, and the task's word."""

    fd: int
    events: int
    data: int


class Waiting(NamedTuple):
    """An epoll instance (a descriptor of ours) and what it has of the file; close it."""

    epoll: int
    interests: list[Interest]


def waiting_for(tid: int, file: int, fds: Collection[int]) -> list[Waiting]:
    """The epoll instances of a task that watch copies of our descriptor ``file``.

    ``fds`` are their numbers, which have to do where the kernel cannot compare. Raises
    ProcessLookupError when the task is gone.
    """
    found = []
    try:
        for epoll in numbers(tid):
            interests = _interests(tid, epoll, file, fds)
            if interests and (copy := copy_descriptor(tid, epoll)) is not None:
                found.append(Waiting(copy, interests))
    except BaseException:
        for waiting in found:
            os.close(waiting.epoll)
        raise
    return found


def move(found: Sequence[Waiting], was: int, now: int) -> None:
    """Let them watch ``now`` instead of ``was``: under the same numbers, for the same events, with
    the same data. Our own numbers are used for it, so this is for a process that ends then.

    Raises OSError where an instance cannot take it.
    """
    above = 1 + max((each.fd for _, interests in found for each in interests), default=0)
    was, now = (fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in (was, now))
    for waiting in found:
        epoll = fcntl.fcntl(waiting.epoll, fcntl.F_DUPFD, above)
        for fd, events, data in waiting.interests:
            event = ctypes.create_string_buffer(_EVENT.pack(events, data))
            os.dup2(now, fd)
            check(libc.epoll_ctl(epoll, _CTL_ADD, fd, event))
            os.dup2(was, fd)
            check(libc.epoll_ctl(epoll, _CTL_DEL, fd, event))


def _interests(tid: int, epoll: int, was: int, fds: Collection[int]) -> list[Interest]:
    try:
        if os.readlink(f"{tid}/fd/{epoll}", dir_fd=procfs.directory()) != _LINK:
            return []
        lines = _WAITED.findall(procfs.read(f"{tid}/fdinfo/{epoll}"))
    except FileNotFoundError:  # closed meanwhile
        return []
    seen: Counter[int] = Counter()
    found = []
    for number, events, data in lines:
        fd = int(number)
        same = same_in_epoll(tid, epoll, fd, seen[fd], was)
        if same or (same is None and fd in fds and not seen[fd]):
            found.append(Interest(fd, int(events, 16), int(data, 16)))
        seen[fd] += 1
    return found
