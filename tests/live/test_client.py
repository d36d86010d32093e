"""What is found out about a client, against what the client itself finds."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.errors import PrivilegeError
from fserr_bpf.live.client import AT_FDCWD, Client
from fserr_bpf.live.credentials import read_status, set_effective
from fserr_bpf.live.pidnamespaces import pid_namespace_of, pid_seen_by
from tests.c_reader import COMPILER
from tests.live.conftest import IN_LAB, skip
from tests.live.taken import Taken, compile_client, descriptors, taken

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

NOBODY = 65534
GROUP = 4242
CAP_SYS_CHROOT = 1 << 18
LAST_MARK = "mark -1 0 0"

AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
IN_GROUP = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={GROUP}")
WITHOUT_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
USER_NAMESPACE = ("unshare", "--user", "--map-root-user")
PID_NAMESPACE = ("unshare", "--pid", "--fork")
PID_AND_PROC = (*PID_NAMESPACE, "--mount-proc")
MOUNT_NAMESPACE = ("unshare", "--mount")
NOWHERE: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def client() -> Iterator[Path]:
    """Where every user can run it."""
    made = subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True)
    directory = Path(made.stdout.strip())
    directory.chmod(0o755)
    yield compile_client(directory)
    subprocess.run(["rm", "-r", directory], check=True)


@pytest.fixture
def place(client: Path) -> Iterator[Path]:
    """A directory that every user can enter, with files that not everybody can read."""
    directory = client.parent / "place"
    directory.mkdir()
    for name, owner, group, mode in (
        ("open", 0, 0, 0o644),
        ("of_nobody", NOBODY, 0, 0o600),
        ("of_root", 0, 0, 0o600),
        ("of_group", 0, GROUP, 0o640),
        ("of_other", 1234, 1234, 0o600),
    ):
        file = directory / name
        file.write_text(name)
        os.chown(file, owner, group)
        file.chmod(mode)
    (directory / "below").mkdir()
    (directory / "below/file").write_text("below")
    (directory / "link").symlink_to("/open")
    yield directory
    subprocess.run(["rm", "-r", directory], check=True)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """The supervisor is where and what it was, and has no more open than before."""
    before = ourselves()
    yield
    assert ourselves() == before


def ourselves() -> list[object]:
    root = os.stat("/")
    status = Path("/proc/thread-self/status").read_text()
    rights = re.findall("^(?:Uid|Gid|Groups|Cap...|NoNewPrivs):.*", status, re.MULTILINE)
    return [
        *(descriptors(), os.getcwd(), (root.st_dev, root.st_ino), rights),
        *(os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "user", "pid")),
    ]


def require_user_namespaces() -> None:
    """The lab's root is a chroot, where the kernel allows none."""
    if subprocess.run([*USER_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        skip("unshare --user is refused here", expected=IN_LAB)


def inode_of(dirfd: int, path: bytes | None) -> int:
    """What the client's open(2) and fstat(2) do."""
    assert path is not None
    fd = os.open(path, os.O_RDONLY, dir_fd=None if dirfd == AT_FDCWD else dirfd)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def seen(run: Taken) -> int:
    """The inode that the next call's path leads to, or minus the errno; answers the call."""
    call = run.call()
    look = Client(call.tid)
    dirfd = int.from_bytes(call.args[3].to_bytes(8, "little")[:4], "little", signed=True)
    path = look.text_at(call.args[4]) if call.args[4] else None
    try:
        result = look.in_context(dirfd, path, inode_of)
    except OSError as error:
        result = -(error.errno or 0)
    assert run.listener.waits(call)
    assert run.listener.answer(call, 0)
    return result


def own(run: Taken) -> int:
    """The inode that the client itself has found, or minus its errno."""
    said = dict(line.split() for line in run.lines())
    return int(said["inode"]) if int(said["open"]) >= 0 else int(said["open"])


@pytest.mark.parametrize(
    ("within", "name", "error"),
    [
        (NOWHERE, "open", 0),
        (NOWHERE, "missing", errno.ENOENT),
        (NOWHERE, "open/below", errno.ENOTDIR),
        (NOWHERE, "of_other", 0),
        (AS_NOBODY, "open", 0),
        (AS_NOBODY, "of_nobody", 0),
        (AS_NOBODY, "of_root", errno.EACCES),
        (AS_NOBODY, "of_group", errno.EACCES),
        (IN_GROUP, "of_group", 0),
        (WITHOUT_OVERRIDE, "of_root", 0),
        (WITHOUT_OVERRIDE, "of_nobody", errno.EACCES),
        (USER_NAMESPACE, "of_root", 0),
        (USER_NAMESPACE, "of_other", errno.EACCES),
        ((*USER_NAMESPACE, "--mount"), "of_other", errno.EACCES),
        (PID_NAMESPACE, "open", 0),
    ],
)
def test_path_means_what_it_means_to_the_client(
    client: Path, place: Path, within: tuple[str, ...], name: str, error: int
) -> None:
    if "--user" in within:
        require_user_namespaces()
    for directory, path in ((None, place / name), (place, name)):
        enter = f"cd {directory} " if directory else ""
        words = f"{enter}open {path} 0 inode 3 {LAST_MARK} {AT_FDCWD} {path}"
        with taken(client, words, within=within) as run:
            answer = seen(run)
            found = own(run)
        assert answer == found
        if error:
            assert answer == -error
        else:
            assert answer == (place / name).stat().st_ino


@pytest.mark.parametrize("name", ["/open", "/link", "/../open", "/below/file", "/place/open"])
@pytest.mark.parametrize("user", [NOWHERE, ("--userspec", f"{NOBODY}:{NOBODY}")])
def test_chroot(client: Path, place: Path, name: str, user: tuple[str, ...]) -> None:
    (place / "client").write_bytes(client.read_bytes())
    (place / "client").chmod(0o755)
    words = f"open {name} 0 inode 3 {LAST_MARK} {AT_FDCWD} {name}"
    with taken(Path("/client"), words, within=("chroot", *user, str(place))) as run:
        answer = seen(run)
        assert answer == own(run)
        assert (answer > 0) == (not name.startswith("/place"))


def test_relative_path_does_not_leave_the_chroot(client: Path, place: Path) -> None:
    (place / "client").write_bytes(client.read_bytes())
    (place / "client").chmod(0o755)
    path = "../../../open"
    words = f"cd below open {path} 0 inode 3 {LAST_MARK} {AT_FDCWD} {path}"
    with taken(Path("/client"), words, within=("chroot", str(place))) as run:
        assert seen(run) == own(run) == (place / "open").stat().st_ino


@pytest.mark.parametrize("relative", [False, True])
def test_mount_made_after_exec(client: Path, place: Path, relative: bool) -> None:
    """It is seen in the client's mount namespace only, and can be unmounted right after."""
    below = place / "below"
    path = "file" if relative else f"{below}/file"
    script = 'mount -t tmpfs tmpfs "$0" && echo new > "$0/file" && exec "$@"'
    words = (
        f"cd {below if relative else '/'} open {path} 0 inode 3 close 3 "
        f"{LAST_MARK} {AT_FDCWD} {path} {LAST_MARK} {AT_FDCWD} {path}x cd / umount {below}"
    )
    within = (*MOUNT_NAMESPACE, "sh", "-c", script, str(below))
    with taken(client, words, within=within) as run:
        answers = [seen(run), seen(run)]
        lines = run.lines()
    inode = int(lines[2].split()[1])
    assert inode != (below / "file").stat().st_ino
    assert answers == [inode, -errno.ENOENT]
    assert lines[-1] == "umount 0"


@pytest.mark.parametrize("fails", [False, True])
def test_unmount_right_after_in_the_supervisors_own_place(
    client: Path, place: Path, fails: bool
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place / "below"], check=True)
    words = f"cd {place}/below open . 0 {LAST_MARK} 3 new {LAST_MARK} 3 NULL close 3 cd /"
    mounted = True
    try:
        with taken(client, f"{words} umount {place}/below") as run:
            for expected in (b"new", None):
                call = run.call()
                look = Client(call.tid)

                def work(dirfd: int, path: bytes | None, expected: bytes | None = expected) -> int:
                    assert path == expected
                    if fails:
                        raise ValueError
                    return os.fstat(dirfd).st_ino

                if fails:
                    with pytest.raises(ValueError, match=r"^$"):
                        look.in_context(3, expected, work)
                else:
                    inode = (place / "below").stat().st_ino
                    assert look.in_context(3, expected, work) == inode
                run.listener.answer(call, 0)
            mounted = run.said("umount") != [0]
        assert not mounted
    finally:
        if mounted:
            subprocess.run(["umount", place / "below"], check=True)


@pytest.mark.parametrize("within", [NOWHERE, AS_NOBODY, MOUNT_NAMESPACE, PID_NAMESPACE])
def test_directory_descriptors(client: Path, place: Path, within: tuple[str, ...]) -> None:
    words = (
        f"open {place} 0 open {place}/open 0 open {place}/below/file 0 inode 5 "
        f"{LAST_MARK} 3 below/file {LAST_MARK} 4 file {LAST_MARK} 99 file "
        f"{LAST_MARK} -1 file {LAST_MARK} 99 {place}/below/file"
    )
    with taken(client, words, within=within) as run:
        answers = [seen(run) for _ in range(5)]
        inode = own(run)
    assert answers == [inode, -errno.ENOTDIR, -errno.EBADF, -errno.EBADF, inode]


@pytest.mark.parametrize("within", [NOWHERE, AS_NOBODY, MOUNT_NAMESPACE, PID_NAMESPACE])
def test_null_path_names_the_open_file_itself(
    client: Path, place: Path, within: tuple[str, ...]
) -> None:
    o_path = os.O_PATH
    words = f"open {place}/open 0 open {place}/open {o_path} " + "".join(
        f"{LAST_MARK} {fd} NULL " for fd in (3, 4, 99, AT_FDCWD)
    )

    def work(dirfd: int, path: bytes | None) -> tuple[int, bool]:
        assert path is None
        if dirfd < 0:
            return dirfd, False
        return os.fstat(dirfd).st_ino, bool(fcntl.fcntl(dirfd, fcntl.F_GETFL) & o_path)

    answers = []
    with taken(client, words, within=within) as run:
        for fd in (3, 4, 99, AT_FDCWD):
            call = run.call()
            answers.append(Client(call.tid).in_context(fd, None, work))
            run.listener.answer(call, 0)
        run.lines()
    inode = (place / "open").stat().st_ino
    assert answers == [(inode, False), (inode, True), (-1, False), (AT_FDCWD, False)]


@pytest.mark.parametrize("within", [NOWHERE, PID_NAMESPACE, PID_AND_PROC, MOUNT_NAMESPACE])
@pytest.mark.parametrize(
    "path",
    ["/proc/self/fd/3", "/proc/thread-self/fd/3", "//proc/.//self/fd/3", "/proc/self/cwd/open"],
)
def test_own_proc(client: Path, place: Path, within: tuple[str, ...], path: str) -> None:
    words = f"cd {place} open {place}/open 0 open {path} 0 inode 4 {LAST_MARK} {AT_FDCWD} {path}"
    with taken(client, words, within=within) as run:
        answer = seen(run)
        assert answer == own(run) == (place / "open").stat().st_ino


@pytest.mark.parametrize("within", [NOWHERE, AS_NOBODY, MOUNT_NAMESPACE, USER_NAMESPACE])
def test_only_a_user_namespace_needs_another_process(client: Path, within: tuple[str, ...]) -> None:
    if "--user" in within:
        require_user_namespaces()
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=within) as run:
        call = run.call()

        def work(_dirfd: int, _path: bytes | None) -> tuple[int, bool]:
            return os.getpid(), run.listener.waits(call)

        pid, waits = Client(call.tid).in_context(AT_FDCWD, b"/", work)
        assert (pid == os.getpid()) == (within != USER_NAMESPACE)
        assert waits
        run.listener.answer(call, 0)
        run.lines()


def test_stays_out_of_the_clients_reach(client: Path) -> None:
    """Processes of the client's user must not be able to stop the supervisor."""

    def work(_dirfd: int, _path: bytes | None) -> int:
        if kept := os.fork():
            return kept
        signal.pause()
        os._exit(0)

    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=AS_NOBODY) as run:
        call = run.call()
        twin = Client(call.tid).in_context(AT_FDCWD, b"/", work)
        try:
            kill = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "kill", "-STOP", str(twin)]
            done = subprocess.run(kill, capture_output=True, text=True, check=False)
            assert "not permitted" in done.stderr.lower()
        finally:
            os.kill(twin, signal.SIGKILL)
            os.waitpid(twin, 0)
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.parametrize("sent", [signal.SIGSTOP, signal.SIGKILL])
def test_child_in_reach_of_the_client(client: Path, sent: signal.Signals) -> None:
    """The owner of a user namespace may stop what is in it, but nobody waits for that."""
    require_user_namespaces()
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=USER_NAMESPACE) as run:
        call = run.call()
        with pytest.raises(InterruptedError):
            Client(call.tid).in_context(AT_FDCWD, b"/", lambda *_: os.kill(os.getpid(), sent))
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.parametrize("within", [NOWHERE, AS_NOBODY, MOUNT_NAMESPACE, USER_NAMESPACE])
def test_what_goes_wrong_in_there_comes_out(client: Path, within: tuple[str, ...]) -> None:
    if "--user" in within:
        require_user_namespaces()

    def fail(_dirfd: int, _path: bytes | None) -> None:
        raise KeyError("mistake")

    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=within) as run:
        call = run.call()
        with pytest.raises(KeyError, match="mistake"):
            Client(call.tid).in_context(AT_FDCWD, b"/", fail)
        run.listener.answer(call, 0)
        run.lines()


def test_supervisor_without_the_right(client: Path) -> None:
    """One line for the user, and the supervisor stays where it is."""
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /", within=MOUNT_NAMESPACE) as run:
        call = run.call()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                before = ourselves()[1:3]
                set_effective(read_status("self").credentials.effective & ~CAP_SYS_CHROOT)
                Client(call.tid).in_context(AT_FDCWD, b"/", inode_of)
            except PrivilegeError:
                code = 0 if ourselves()[1:3] == before else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        run.listener.answer(call, 0)
        run.lines()


def test_text_is_what_the_kernel_would_take(client: Path) -> None:
    texts: list[bytes | int] = []
    with taken(client, "init 0x200 0 paths 3") as run:
        run.listener.let_through(run.call())

        for _ in range(11):
            call = run.call()
            try:
                texts.append(Client(call.tid).text_at(call.args[4]))
            except OSError as error:
                texts.append(-(error.errno or 0))
            run.listener.let_through(call)
        native = run.said("path")
    fault, too_long = -errno.EFAULT, -errno.ENAMETOOLONG
    assert texts == [
        *(b"last", b"across", fault, too_long, b"a" * 4095, b""),
        *(fault, fault, fault, fault, fault),
    ]
    assert [text for text in texts if isinstance(text, int)] == [
        result for text, result in zip(texts, native, strict=True) if isinstance(text, int)
    ]
    assert native[5] == -errno.ENOENT


@pytest.mark.parametrize(
    ("within", "privileged", "effective"),
    [
        (NOWHERE, True, True),
        (MOUNT_NAMESPACE, True, True),
        (WITHOUT_OVERRIDE, True, True),
        (AS_NOBODY, False, False),
        (("setpriv", "--bounding-set=-sys_admin"), False, False),
        (USER_NAMESPACE, False, True),
    ],
)
def test_privileged(
    client: Path, within: tuple[str, ...], privileged: bool, effective: bool
) -> None:
    if "--user" in within:
        require_user_namespaces()
    with taken(client, "init 0 0", within=within) as run:
        call = run.call()
        status = Path(f"/proc/{call.tid}/status").read_text()
        mask = int(status.partition("CapEff:")[2].split()[0], 16)
        assert bool(mask >> 21 & 1) == effective
        assert Client(call.tid).privileged() == privileged
        run.listener.let_through(call)
        # 5.13 gave groups without privilege to everybody, but not of these flags
        assert (run.said("init") == [3]) == privileged


def test_process_of_a_thread(client: Path) -> None:
    with taken(client, "threads 2 1") as run:
        calls = [run.call(), run.call()]
        assert {Client(call.tid).tgid for call in calls} == {run.process.pid}
        assert run.process.pid not in {call.tid for call in calls}
        for call in calls:
            run.listener.answer(call, call.args[0])
        assert run.said("threads") == [2]


def test_identity(client: Path, place: Path) -> None:
    with taken(client, f"open {place}/open 0 init 0 0", within=MOUNT_NAMESPACE) as run:
        call = run.call()
        status = (place / "open").stat()
        assert Client(call.tid).identity(3) == (status.st_dev, status.st_ino)
        assert Client(call.tid).identity(4) is None
        assert Client(call.tid).identity(-1) is None
        run.listener.answer(call, 0)
        run.lines()


@pytest.mark.parametrize("within", [NOWHERE, PID_NAMESPACE, (*PID_NAMESPACE, *PID_AND_PROC)])
def test_pid_namespaces(client: Path, within: tuple[str, ...]) -> None:
    with taken(client, "init 0 0 pid", within=within) as run:
        call = run.call()
        namespace = Client(call.tid).pid_namespace()
        inside = pid_seen_by(call.tid, namespace)
        assert pid_seen_by(call.tid, pid_namespace_of("self")) == call.tid
        assert (namespace == pid_namespace_of("self")) == (not within)
        if within:
            assert pid_seen_by(os.getpid(), namespace) == 0
        chain = numbers(call.tid)
        assert len(chain) == 1 + within.count("--pid")
        if len(chain) == 3:
            middle = pid_namespace_of(parent(call.tid))
            assert pid_seen_by(call.tid, middle) == chain[1]
        run.listener.answer(call, 0)
        assert run.said("pid") == [inside] == [chain[-1]]
        if within:
            run.process.wait()
            assert pid_seen_by(call.tid, namespace) == 0


def numbers(tid: int) -> list[int]:
    found = re.search(r"^NSpid:(.*)$", Path(f"/proc/{tid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return [int(number) for number in found[1].split()]


def parent(tid: int) -> int:
    """In the namespace between: the process that made the inner one."""
    return int(Path(f"/proc/{tid}/stat").read_text().rpartition(")")[2].split()[1])


def test_client_that_is_gone(client: Path) -> None:
    with taken(client, f"{LAST_MARK} {AT_FDCWD} /") as run:
        call = run.call()
        run.process.kill()
        run.process.wait()
        look = Client(call.tid)
        assert look.identity(1) is None
        for ask in (
            lambda: look.tgid,
            look.privileged,
            look.pid_namespace,
            lambda: look.text_at(call.args[4]),
            lambda: look.in_context(AT_FDCWD, b"/", inode_of),
            lambda: look.in_context(1, None, inode_of),
        ):
            with pytest.raises(ProcessLookupError):
                ask()
