"""What tests of clients share: who clients are, where they run, and that they leave nothing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fserr_bpf.kernel import procfs
from fserr_bpf.uapi.fcntl import AT_FDCWD
from tests.live.conftest import IN_LAB, skip
from tests.live.taken import compile_client, descriptors

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


def compiled_client() -> Iterator[Path]:
    """The program, where every user can run it."""
    made = subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True)
    directory = Path(made.stdout.strip())
    directory.chmod(0o755)
    yield compile_client(directory)
    subprocess.run(["rm", "-r", directory], check=True)


def place_of(client: Path) -> Iterator[Path]:
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


def nothing_left() -> Iterator[None]:
    """The supervisor is where and what it was, and has no more open than before."""
    procfs.directory()
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
