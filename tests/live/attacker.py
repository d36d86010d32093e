"""Who a hostile client can be, and what its attempts are made with; see hostile.py."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fserr_bpf.kernel.libc import check, libc
from fserr_bpf.kernel.syscalls import fanotify_init, fanotify_mark
from fserr_bpf.uapi import fuse

PATIENCE = 20.0
NOBODY = 65534
INIT_FLAGS = 0x203  # FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID
ADD, REMOVE, FLUSH, FILESYSTEM = 0x1, 0x2, 0x80, 0x100
FAN_OPEN, FAN_FS_ERROR = 0x20, 0x8000
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
NR_MARK, NR_USERFAULTFD = 301, 323
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00
TOKEN = "FSERR_TEST_TOKEN"
MANY = 40
AT_REST = 4  # two guardians, the supervisor, a worker


@dataclass
class Here:
    """What the attempts are made on: an ext4, what causes its errors, and an empty folder."""

    mount_point: Path = Path()
    trigger: Path = Path()
    directory: Path = Path()


here = Here()
"""Set by the client's ``main()``."""


class Failed(Exception):
    """What is not as it should be."""


# -- who --------------------------------------------------------------------------------


def as_root() -> None:
    """As this process."""


def as_nobody() -> None:
    """Without any right, with the group that it has inherited."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def in_user_namespace() -> None:
    """Root of a user namespace and a mount namespace of its own."""
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/self/gid_map").write_text("0 0 1")


def in_mount_namespace() -> None:
    """Root in a mount namespace of its own."""
    check(libc.unshare(CLONE_NEWNS))
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def in_pid_namespace() -> None:
    """Root, as the first process of a pid namespace; /proc is that of the one around it."""
    check(libc.unshare(CLONE_NEWPID))
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    end_with_parent()


WHO: dict[str, Callable[[], None]] = {
    "root": as_root,
    "nobody": as_nobody,
    "user": in_user_namespace,
    "mount": in_mount_namespace,
    "pid": in_pid_namespace,
}


# -- tools ------------------------------------------------------------------------------


def end_with_parent() -> None:
    """Be killed with it."""
    check(libc.prctl(1, int(signal.SIGKILL), 0, 0, 0))


def mount(source: str, where: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    check(libc.mount(source.encode(), bytes(where), kind.encode(), flags, options.encode()))


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Raises Failed after a while."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited in vain for {what}")
        time.sleep(0.002)


def outcome(work: Callable[[], object]) -> str:
    """What it returns, or the name of its errno."""
    try:
        return str(work())
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))


@contextmanager
def child(who: str, work: Callable[[], object]) -> Iterator[tuple[int, int]]:
    """Its pid, and a pipe that has the outcome of ``work``; killed in the end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_child(who, work, writer)
    os.close(writer)
    try:
        yield pid, reader
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_child(who: str, work: Callable[[], object], writer: int) -> NoReturn:
    try:
        end_with_parent()
        WHO[who]()
        end_with_parent()
        os.write(writer, outcome(work).encode())
    except BaseException as error:
        os.write(writer, repr(error).encode())
        traceback.print_exc()
    finally:
        os._exit(0)


def result_of(who: str, work: Callable[[], object]) -> str:
    """The outcome of ``work`` in a child."""
    with child(who, work) as (_, reader):
        if not select.select([reader], [], [], PATIENCE)[0]:
            raise Failed("it hangs")
        return os.read(reader, 4096).decode()


def waits_in_mark(pid: int) -> bool:
    """Whether some task of the process, or of its only child, is in fanotify_mark(2)."""
    calls = []
    for call in Path("/proc").glob(f"{pid}/task/*/syscall"):
        with contextlib.suppress(OSError):
            calls.append(call.read_text())
    with contextlib.suppress(OSError, ValueError):
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        calls += [Path(f"/proc/{p}/syscall").read_text() for p in below]
    return any(call.startswith(f"{NR_MARK} ") for call in calls)


def helpers() -> set[int]:
    """The processes of exec that work for us."""
    wanted = f"{TOKEN}={os.environ[TOKEN]}".encode()
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(environ.parts[2])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if wanted in environ.read_bytes().split(b"\0") and b"exec" in words:
                found.add(pid)
    return found - {os.getpid()}


def descriptors() -> int:
    """How many the supervisor has."""
    pids = helpers()
    above = {
        pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in pids
    }
    (supervisor,) = (p for p in pids if above[p] in pids and above[above[p]] not in pids)
    return len(os.listdir(f"/proc/{supervisor}/fd"))


def mark_here(group: int, path: Path | bytes, mask: int = FAN_OPEN, flags: int = ADD) -> None:
    """An inode mark, which needs no right but to read the file."""
    fanotify_mark(group, flags, mask, bytes(path))


def make_group() -> int:
    """A group; all of root's on this machine share a limit, and those that end still count."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fanotify_init(INIT_FLAGS)
        except OSError as error:
            if error.errno != errno.EMFILE or time.monotonic() > end:
                raise
            time.sleep(0.01)


def emulated_group() -> int:
    """One that was asked for errors once: the supervisor answers for all its marks."""
    group = make_group()
    fanotify_mark(group, ADD | FILESYSTEM, FAN_FS_ERROR, str(here.mount_point))
    fanotify_mark(group, REMOVE | FILESYSTEM, FAN_FS_ERROR, str(here.mount_point))
    return group


def serves() -> None:
    """A group of our own gets an error, and its mark is taken off again."""
    group = make_group()
    try:
        fanotify_mark(group, ADD | FILESYSTEM, FAN_FS_ERROR, str(here.mount_point))
        here.trigger.write_text("x")
        if not select.select([group], [], [], PATIENCE)[0]:
            raise Failed("no event for others")
        mask = struct.unpack_from("=Q", os.read(group, 4096), 8)[0]
        if mask != FAN_FS_ERROR:
            raise Failed(f"an event of {mask:#x} for others")
        fanotify_mark(group, REMOVE | FILESYSTEM, FAN_FS_ERROR, str(here.mount_point))
    finally:
        os.close(group)


def blocked_then_killed(who: str, work: Callable[[], object]) -> str:
    """While ``work`` waits all others are served; when it is killed nothing of it stays."""
    with child(who, work) as (pid, reader):
        wait_until(lambda: waits_in_mark(pid), "the call to be made")
        serves()
        if select.select([reader], [], [], 0)[0] or not waits_in_mark(pid):
            raise Failed(f"it does not wait: {os.read(reader, 4096).decode()}")
    wait_until(lambda: len(helpers()) <= AT_REST, "the worker to end")
    return "waited"


@contextmanager
def silent_fuse(who_may: str = "allow_other") -> Iterator[Path]:
    """A mounted FUSE whose server answers nothing but the first request."""
    place = here.directory / "fuse"
    place.mkdir(exist_ok=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    mount("fuse", place, "fuse", 0, f"{options},{who_may}" if who_may else options)
    try:
        request = os.read(device, fuse.FUSE_MIN_READ_BUFFER)
        unique = fuse.IN_HEADER.unpack_from(request)[2]
        body = fuse.INIT_OUT.pack(7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, bytes(32))
        os.write(device, fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size + len(body), 0, unique) + body)
        yield place
    finally:
        os.close(device)  # the connection is aborted
        check(libc.umount2(bytes(place), MNT_DETACH))
