"""Paths and directories of a call, looked up in the client's place with its rights."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf.tasks.client import Client
from fserr_bpf.tasks.memory import text_at
from fserr_bpf.uapi.fcntl import AT_FDCWD
from tests.c_reader import COMPILER
from tests.live.client_place import (
    AS_NOBODY,
    IN_GROUP,
    LAST_MARK,
    MOUNT_NAMESPACE,
    NOBODY,
    NOWHERE,
    PID_AND_PROC,
    PID_NAMESPACE,
    USER_NAMESPACE,
    WITHOUT_OVERRIDE,
    compiled_client,
    inode_of,
    nothing_left,
    place_of,
    require_user_namespaces,
)
from tests.live.taken import Taken, taken

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Path]:
    yield from compiled_client()


@pytest.fixture
def place(client: Path) -> Iterator[Path]:
    yield from place_of(client)


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    yield from nothing_left()


def seen(run: Taken) -> int:
    """The inode that the next call's path leads to, or minus the errno; answers the call."""
    call = run.call()
    look = Client(call.tid)
    dirfd = int.from_bytes(call.args[3].to_bytes(8, "little")[:4], "little", signed=True)
    path = text_at(call.tid, call.args[4]) if call.args[4] else None
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


@pytest.mark.threat("paths-by-rights")
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


@pytest.mark.threat("root")
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


@pytest.mark.threat("root")
def test_relative_path_does_not_leave_the_chroot(client: Path, place: Path) -> None:
    (place / "client").write_bytes(client.read_bytes())
    (place / "client").chmod(0o755)
    path = "../../../open"
    words = f"cd below open {path} 0 inode 3 {LAST_MARK} {AT_FDCWD} {path}"
    with taken(Path("/client"), words, within=("chroot", str(place))) as run:
        assert seen(run) == own(run) == (place / "open").stat().st_ino


@pytest.mark.threat("root")
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


@pytest.mark.threat("directory-descriptor")
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


@pytest.mark.threat("directory-descriptor")
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


@pytest.mark.threat("directory-descriptor")
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


@pytest.mark.threat("clients-proc")
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
