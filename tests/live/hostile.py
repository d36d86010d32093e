"""A client of ``fserr-bpf exec`` that does to it what it can; run by test_exec_hostile.py.

    hostile.py MOUNT_POINT TRIGGER DIRECTORY [NAME:WHO ...]

Does one attempt after the other in children, as ``WHO``, and prints "NAME:WHO RESULT" for each. The
group that an attempt uses is of this process; after each one it asks whether a group of its own
still gets its errors. MOUNT_POINT is an ext4 whose TRIGGER causes errors, DIRECTORY
is empty and may be entered by everybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from fserr_bpf.kernel.libc import check, libc, syscall
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

_PLACES = sys.argv[1:4] if __name__ == "__main__" else ["", "", ""]
mount_point, trigger, directory = map(Path, _PLACES)


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
    fanotify_mark(group, ADD | FILESYSTEM, FAN_FS_ERROR, str(mount_point))
    fanotify_mark(group, REMOVE | FILESYSTEM, FAN_FS_ERROR, str(mount_point))
    return group


def serves() -> None:
    """A group of our own gets an error, and its mark is taken off again."""
    group = make_group()
    try:
        fanotify_mark(group, ADD | FILESYSTEM, FAN_FS_ERROR, str(mount_point))
        trigger.write_text("x")
        if not select.select([group], [], [], PATIENCE)[0]:
            raise Failed("no event for others")
        mask = struct.unpack_from("=Q", os.read(group, 4096), 8)[0]
        if mask != FAN_FS_ERROR:
            raise Failed(f"an event of {mask:#x} for others")
        fanotify_mark(group, REMOVE | FILESYSTEM, FAN_FS_ERROR, str(mount_point))
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
    place = directory / "fuse"
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


# -- attempts ---------------------------------------------------------------------------


def fifos(where: Path, names: list[str]) -> None:
    """What a supervisor might look for in a /proc, as FIFOs without a writer."""
    for name in ("self", "thread-self", *names):
        (where / name / "ns").mkdir(parents=True, exist_ok=True)
        for file in ("status", "stat", "ns/pid", "ns/mnt", "ns/user", "root", "mountinfo"):
            os.mkfifo(where / name / file, 0o600)


def opened(where: Path) -> list[str]:
    """Which of them somebody has open for reading."""
    found = []
    for path in where.rglob("*"):
        if path.is_fifo():
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                found.append(path.name)
    return found


def own_proc(who: str, group: int) -> str:
    """/proc of the client is its own folder."""
    root = directory / "root"

    def work() -> str:
        calls = (
            lambda: mark_here(group, b"/proc/self/fd/0"),
            lambda: mark_here(group, b"/x"),
            lambda: os.close(make_group()),
        )
        return " ".join(outcome(call) for call in calls)

    def enter() -> None:
        root.mkdir()
        fifos(root / "proc", [str(n) for n in {1, os.getpid(), os.getppid()}])
        (root / "x").write_text("")
        os.chroot(root)
        os.chdir("/")

    def become() -> None:
        first, second = (enter, WHO[who]) if who == "nobody" else (WHO[who], enter)
        first()
        second()

    WHO["here"] = become
    result = result_of("here", work)
    found = opened(root / "proc")
    remove(root)
    return f"{result} {found}"


def over_proc(who: str, group: int) -> str:
    """Something is mounted over /proc of our namespace, where the supervisor is as well."""

    def work() -> str:
        mount("tmpfs", Path("/proc"), "tmpfs")
        try:
            fifos(Path("/proc"), ["sys"])
            with contextlib.suppress(FileExistsError):
                (Path("/proc/sys/fs/fanotify")).mkdir(parents=True)
                os.mkfifo("/proc/sys/fs/fanotify/max_queued_events")
            serves()
            mark_here(group, mount_point)
            return str(opened(Path("/proc")))
        finally:
            check(libc.umount2(b"/proc", MNT_DETACH))

    return result_of(who, work)


def withheld_memory(who: str, group: int) -> str:
    """The path is in memory that a userfaultfd handler, this process, does not give."""
    size = 4096
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = libc.mmap(None, size, 3, 0x22, -1, 0)

    def work() -> None:
        check(
            int(
                libc.syscall(
                    NR_MARK, group, ADD, ctypes.c_ulong(FAN_OPEN), -100, ctypes.c_void_p(address)
                )
            )
        )

    def withhold() -> None:
        handler = syscall(NR_USERFAULTFD, os.O_CLOEXEC)
        fcntl.ioctl(handler, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
        fcntl.ioctl(handler, UFFDIO_REGISTER, bytearray(struct.pack("=QQQQ", address, size, 1, 0)))
        WHO[who]()

    WHO["here"] = withhold
    return blocked_then_killed("here", work)


def silent_server(who: str, group: int) -> str:
    """The path leads into a file system whose server does not answer."""
    with silent_fuse() as place:
        return blocked_then_killed(who, lambda: mark_here(group, place / "x"))


def kept_out(who: str, group: int) -> str:
    """A file system of root's that lets nobody else in asks its server for nobody else."""
    with silent_fuse("") as place:
        return result_of(who, lambda: mark_here(group, place / "x"))


def frozen(who: str, group: int) -> str:
    """A frozen file system: the kernel itself does not wait there."""
    file = os.open(mount_point, os.O_RDONLY)
    fcntl.ioctl(file, FIFREEZE, 0)
    try:
        return result_of(who, lambda: mark_here(group, mount_point))
    finally:
        fcntl.ioctl(file, FITHAW, 0)
        os.close(file)


def many_blocked(who: str, group: int) -> str:
    """One user's calls take no share of others', and are served when there is room again."""
    with silent_fuse() as place, contextlib.ExitStack() as stack:
        for _ in range(MANY):
            pid, _ = stack.enter_context(child(who, lambda: mark_here(group, place / "x")))
            wait_until(partial(waits_in_mark, pid), "the call to be made")
        serves()
        with child(who, lambda: mark_here(group, mount_point)) as (pid, reader):
            wait_until(lambda: waits_in_mark(pid) or select.select([reader], [], [], 0)[0], "it")
            stack.close()
            if not select.select([reader], [], [], PATIENCE)[0]:
                raise Failed("the calls that waited are not made")
            answer = os.read(reader, 4096).decode()
    wait_until(lambda: len(helpers()) <= AT_REST, "the workers to end")
    return answer


def flush_without_right(who: str, group: int) -> str:
    """Who may not make a mark of a file system may not take it away either."""
    fanotify_mark(group, ADD | FILESYSTEM, FAN_FS_ERROR, str(mount_point))
    answer = result_of(who, lambda: fanotify_mark(group, FLUSH | FILESYSTEM, 0, None))
    trigger.write_text("x")
    heard = bool(select.select([group], [], [], PATIENCE)[0])
    fanotify_mark(group, REMOVE | FILESYSTEM, FAN_FS_ERROR, str(mount_point))
    return f"{answer} {heard}"


def killed_calls(who: str, group: int) -> str:
    """Callers vanish in the middle of their calls."""
    before = descriptors()

    def work() -> None:
        while True:
            mark_here(group, mount_point)
            if who == "root":
                os.close(emulated_group())

    for round_ in range(20):
        with child(who, work):
            time.sleep(0.001 * round_)
    serves()
    wait_until(
        lambda: descriptors() <= before and len(helpers()) <= AT_REST, "all to be given back"
    )
    return "gone"


def threads_in_calls(who: str, group: int) -> str:
    """Threads of one process wait and are served beside each other."""
    with silent_fuse() as place:

        def work() -> str:
            waiting = threading.Thread(
                target=lambda: outcome(lambda: mark_here(group, place / "x")), daemon=True
            )
            waiting.start()
            wait_until(lambda: waits_in_mark(os.getpid()), "the call to be made")
            return outcome(lambda: mark_here(group, mount_point))

        return result_of(who, work)


def stopped_caller(who: str, group: int) -> str:
    """A caller that is stopped keeps nobody from being served."""
    with silent_fuse() as place, child(who, lambda: mark_here(group, place / "x")) as (pid, _):
        wait_until(lambda: waits_in_mark(pid), "the call to be made")
        os.kill(pid, signal.SIGSTOP)
        serves()
    return "stopped"


def killed_worker(who: str, group: int) -> str:
    """The process that works for a call is killed."""
    before = helpers()
    with silent_fuse() as place, child(who, lambda: mark_here(group, place / "x")) as (pid, reader):
        wait_until(lambda: waits_in_mark(pid), "the call to be made")
        workers: set[int] = set()

        def found() -> bool:
            workers.update(helpers() - before)
            workers.update(p for p in helpers() if in_fuse(p))
            return bool(workers)

        wait_until(found, "its worker")
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        if not select.select([reader], [], [], PATIENCE)[0]:
            raise Failed("it hangs")
        return os.read(reader, 4096).decode()


def in_fuse(pid: int) -> bool:
    """Whether it waits for a FUSE server."""
    with contextlib.suppress(OSError):
        return "request_wait_answer" in Path(f"/proc/{pid}/stack").read_text()
    return False


def descriptor_of_a_silent_file(who: str, group: int) -> str:
    """The first argument is a file of a server that does not answer, or that keeps root out."""
    del group
    with silent_fuse("") as place:
        descriptor = os.open(place, os.O_PATH)
        try:
            return result_of(who, lambda: fanotify_mark(descriptor, ADD, FAN_OPEN, b"/"))
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """A folder with all that is in it."""
    for below in sorted(path.rglob("*"), reverse=True):
        below.rmdir() if below.is_dir() and not below.is_symlink() else below.unlink()
    path.rmdir()


ATTEMPTS: dict[str, Callable[[str, int], str]] = {
    attempt.__name__: attempt
    for attempt in (
        own_proc,
        over_proc,
        withheld_memory,
        silent_server,
        kept_out,
        frozen,
        many_blocked,
        flush_without_right,
        killed_calls,
        threads_in_calls,
        stopped_caller,
        killed_worker,
        descriptor_of_a_silent_file,
    )
}


def main() -> None:
    """Each attempt, and whether others are served after it."""
    for word in sys.argv[4:]:
        name, _, who = word.partition(":")
        group = emulated_group()
        try:
            result = ATTEMPTS[name](who, group)
            serves()
        except Failed as failed:
            result = f"failed: {failed}"
        except OSError as error:
            result = f"failed: {error!r}"
        finally:
            os.close(group)
        print(word, result, flush=True)


if __name__ == "__main__":
    main()
