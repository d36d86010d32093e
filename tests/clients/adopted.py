"""A client that has used its group before it asks for errors: ``adopted.py WAY DIRECTORY TRIGGER``.

WAY is one of the functions here. DIRECTORY is on an ext4 file system, a write to TRIGGER is an
error of it. Prints what it sees, which is the same for a group of the kernel's own and for one
that ``fserr-bpf exec`` has taken over meanwhile.
"""

import fcntl
import os
import re
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fserr_bpf.kernel.syscalls import fanotify_init, fanotify_mark
from fserr_bpf.uapi.fanotify import (
    FAN_CLOEXEC,
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_FLUSH,
    FAN_NONBLOCK,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FID,
    FAN_REPORT_NAME,
)

FAN_CREATE, FAN_DELETE = 0x100, 0x200
NAMES = FAN_REPORT_FID | FAN_REPORT_DIR_FID | FAN_REPORT_NAME
SECONDS = 20

directory, trigger = Path(sys.argv[2]), Path(sys.argv[3])


def group_of(flags: int = FAN_NONBLOCK) -> int:
    return fanotify_init(FAN_REPORT_FID | flags)


def ask(group: int) -> None:
    fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, str(directory))


def cause() -> None:
    trigger.write_text("x")


def masks(data: bytes) -> Iterator[str]:
    """Of the events in what was read."""
    while data:
        length, mask = struct.unpack_from("<I4xQ", data)
        yield f"{mask:#x}"
        data = data[length:]


def read(group: int) -> str:
    return " ".join(masks(os.read(group, 65536)))


def wait(group: int) -> None:
    if not select.select([group], [], [], SECONDS)[0]:
        print("nothing came")


def while_waiting(thread: threading.Thread, calls: tuple[int, ...]) -> None:
    """Start it, and return when it waits in one of these system calls."""
    thread.start()
    path = Path(f"/proc/self/task/{thread.native_id}/syscall")
    while path.read_text().split()[0] not in map(str, calls):
        time.sleep(0.001)


def epoll() -> None:
    """Level and edge triggered, in two instances, with another file beside."""
    group, (reader, _writer) = group_of(), os.pipe()
    instances = [select.epoll(), select.epoll()]
    for instance, edge in zip(instances, (0, select.EPOLLET), strict=True):
        instance.register(reader, select.EPOLLIN)
        instance.register(group, select.EPOLLIN | edge)
    ask(group)
    print([instance.poll(0) for instance in instances])
    cause()
    for instance in instances:
        print([(fd == group, events) for fd, events in instance.poll(SECONDS)])
    print([(fd == group, events) for fd, events in instances[1].poll(0)])
    print(read(group))
    instances[0].modify(group, select.EPOLLIN | select.EPOLLET)
    cause()
    print([(fd == group, events) for fd, events in instances[0].poll(SECONDS)])
    for instance in instances:
        instance.unregister(group)
        print(instance.poll(0))


def copies() -> None:
    """Each keeps its flags; O_NONBLOCK is set after the group was made."""
    group = group_of(FAN_CLOEXEC)
    fcntl.fcntl(group, fcntl.F_SETFL, os.O_NONBLOCK)
    high = fcntl.fcntl(group, fcntl.F_DUPFD, 200)
    ask(group)
    print([(os.get_inheritable(fd), os.get_blocking(fd)) for fd in (group, high)])
    os.close(group)
    cause()
    wait(high)
    print(read(high))


def unread() -> None:
    """What waits in the group is not lost."""
    group = group_of(FAN_NONBLOCK | NAMES)
    fanotify_mark(group, FAN_MARK_ADD, FAN_CREATE, str(directory))
    (directory / "made").write_text("")
    ask(group)
    wait(group)
    print(read(group))
    cause()
    wait(group)
    print(read(group))
    (directory / "made").unlink()


def reading() -> None:
    """A thread reads before anything is marked."""
    group = group_of(0)
    thread = threading.Thread(target=lambda: print(read(group)), daemon=True)
    while_waiting(thread, (0,))
    ask(group)
    cause()
    thread.join(SECONDS)
    print(thread.is_alive())


def polling() -> None:
    """The same in poll(2) and select(2)."""
    group = group_of()
    poll = select.poll()
    poll.register(group, select.POLLIN)
    waits = (lambda: poll.poll(1000 * SECONDS), lambda: select.select([group], [], [], SECONDS))
    for wait_for in waits:
        thread = threading.Thread(target=lambda wait=wait_for: print(bool(wait())), daemon=True)
        while_waiting(thread, (7, 23, 270, 271))
        ask(group)
        cause()
        thread.join(SECONDS)
        print(thread.is_alive(), read(group))


def sigio() -> None:
    """A group sends none (fanotify_fops has no fasync)."""
    group = group_of()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    fcntl.fcntl(group, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(group, fcntl.F_SETSIG, signal.SIGUSR1)
    fcntl.fcntl(group, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    ask(group)
    cause()
    print(signal.sigtimedwait([signal.SIGUSR1], 0.2) is not None)
    wait(group)
    print(read(group))


def handed() -> None:
    """A child has a copy from before, and asks too."""
    group, (reader, writer) = group_of(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        ask(group)
        cause()
        wait(group)
        print("child", read(group), flush=True)
        os._exit(0)
    ask(group)
    cause()
    wait(group)
    print(read(group), flush=True)
    os.write(writer, b"x")
    os.waitpid(child, 0)


def flushed() -> None:
    """A child with a copy from before takes all marks away."""
    group, (reader, writer) = group_of(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        fanotify_mark(group, FAN_MARK_FLUSH | FAN_MARK_FILESYSTEM, 0, None)
        os._exit(0)
    ask(group)
    cause()
    wait(group)
    print(read(group), flush=True)
    os.write(writer, b"x")
    os.waitpid(child, 0)
    cause()
    print(select.select([group], [], [], 0.2))


def refused() -> None:
    """The group stays what it was: nobody else will ever hear of it."""
    group = group_of()
    try:
        fanotify_mark(
            group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, str(directory / "missing")
        )
    except OSError as error:
        print(error.strerror)
    print(os.readlink(f"/proc/self/fd/{group}"))


def ordinary() -> None:
    """No errors are asked for: all that can be seen of a group."""
    group = group_of(FAN_NONBLOCK | NAMES)
    fanotify_mark(group, FAN_MARK_ADD, FAN_CREATE | FAN_DELETE, str(directory))
    for name in ("one", "two", "three"):
        (directory / name).write_text("")
    waiting = fcntl.ioctl(group, termios.FIONREAD, bytes(4))
    print(struct.unpack("<i", waiting))
    print(read(group))
    for name in ("one", "two", "three"):
        (directory / name).unlink()
        print(read(group))
    print(os.readlink(f"/proc/self/fd/{group}"), oct(os.fstat(group).st_mode))
    lines = Path(f"/proc/self/fdinfo/{group}").read_text().splitlines()
    print([re.sub(r"ino:.*? mflags|fhandle.*", "", x) for x in lines if x.startswith("fanotify")])


globals()[sys.argv[1]]()
sys.stdout.flush()
os._exit(0)
