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
import fcntl
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fserr_bpf.kernel.libc import check, libc, syscall
from fserr_bpf.kernel.syscalls import fanotify_mark
from tests.live.attacker import (
    ADD,
    AT_REST,
    FAN_FS_ERROR,
    FAN_OPEN,
    FIFREEZE,
    FILESYSTEM,
    FITHAW,
    FLUSH,
    MANY,
    MNT_DETACH,
    NR_MARK,
    NR_USERFAULTFD,
    PATIENCE,
    REMOVE,
    UFFDIO_API,
    UFFDIO_REGISTER,
    WHO,
    Failed,
    blocked_then_killed,
    child,
    descriptors,
    emulated_group,
    helpers,
    here,
    make_group,
    mark_here,
    mount,
    outcome,
    result_of,
    serves,
    silent_fuse,
    wait_until,
    waits_in_mark,
)


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
    root = here.directory / "root"

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
            mark_here(group, here.mount_point)
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
    file = os.open(here.mount_point, os.O_RDONLY)
    fcntl.ioctl(file, FIFREEZE, 0)
    try:
        return result_of(who, lambda: mark_here(group, here.mount_point))
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
        with child(who, lambda: mark_here(group, here.mount_point)) as (pid, reader):
            wait_until(lambda: waits_in_mark(pid) or select.select([reader], [], [], 0)[0], "it")
            stack.close()
            if not select.select([reader], [], [], PATIENCE)[0]:
                raise Failed("the calls that waited are not made")
            answer = os.read(reader, 4096).decode()
    wait_until(lambda: len(helpers()) <= AT_REST, "the workers to end")
    return answer


def flush_without_right(who: str, group: int) -> str:
    """Who may not make a mark of a file system may not take it away either."""
    fanotify_mark(group, ADD | FILESYSTEM, FAN_FS_ERROR, str(here.mount_point))
    answer = result_of(who, lambda: fanotify_mark(group, FLUSH | FILESYSTEM, 0, None))
    here.trigger.write_text("x")
    heard = bool(select.select([group], [], [], PATIENCE)[0])
    fanotify_mark(group, REMOVE | FILESYSTEM, FAN_FS_ERROR, str(here.mount_point))
    return f"{answer} {heard}"


def killed_calls(who: str, group: int) -> str:
    """Callers vanish in the middle of their calls."""
    before = descriptors()

    def work() -> None:
        while True:
            mark_here(group, here.mount_point)
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
            return outcome(lambda: mark_here(group, here.mount_point))

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
    here.mount_point, here.trigger, here.directory = map(Path, sys.argv[1:4])
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
        os.write(sys.stdout.fileno(), f"{word} {result}\n".encode())  # others write there too


if __name__ == "__main__":
    main()
