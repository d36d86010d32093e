"""Threads that wait in a system call for a file that has been exchanged: they are to look again."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from fserr_bpf.kernel import procfs
from fserr_bpf.tasks.restart import restart

# arch/x86/entry/syscalls/syscall_64.tbl: those whose first argument is the file
_READS = frozenset({0, 19, 295, 327})  # read, readv, preadv, preadv2
# those that have it in a set: poll, select, pselect6, ppoll
_POLLS = frozenset({7, 23, 270, 271})


def threads_that_wait(tid: int, fds: Collection[int]) -> list[int]:
    """The other threads of the task's process that read or poll ``fds``, or poll anything."""
    return [thread for thread in _threads(tid) if thread != tid and _waits(thread, fds)]


def look_again(threads: Iterable[int]) -> None:
    """Have them begin anew: the kernel looks the numbers up again, the program sees nothing.

    It does so after a stop. Not for threads that are traced by somebody else. Waits for each, which
    may be in a call that no stop interrupts.
    """
    for thread in threads:
        restart(thread)


def _threads(tid: int) -> list[int]:
    try:
        directory = procfs.open_in(f"{tid}/task", os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, ProcessLookupError):
        return []
    try:
        return list(map(int, os.listdir(directory)))
    except ProcessLookupError:
        return []
    finally:
        os.close(directory)


def _waits(thread: int, fds: Collection[int]) -> bool:
    """Whether it is in such a call; ``syscall`` of procfs is "running" for one that is in none."""
    try:
        number, *arguments = procfs.read(f"{thread}/syscall").split()
    except (OSError, ValueError):
        return False
    if not arguments:
        return False
    call = int(number)
    return call in _POLLS or (call in _READS and int(arguments[0], 16) % (1 << 32) in fds)
