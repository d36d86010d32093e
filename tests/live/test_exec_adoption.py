"""Groups are the kernel's own until they are marked for errors, and nobody notices when they go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.exec_clients import SOURCES, told, under_exec
from tests.live.conftest import DEADLINE_SECONDS, kernel_version, skip
from tests.live.exec_place import require_exact_kernel
from tests.live.test_exec_needs import without
from tests.live.test_exec_process import BOTH

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("file_systems")]

NR_KCMP = 312

# what the client prints at least, as the kernel has it
WAYS = {
    "epoll": "[(True, 1)]",
    "copies": "[(False, False), (True, False)]\n0x8000",
    "unread": "0x100\n0x8000",
    "reading": "0x8000\nFalse",
    "polling": "True\nFalse 0x8000\nTrue\nFalse 0x8000",
    "sigio": "False\n0x8000",
    "handed": "0x8000\nchild 0x8000",
    "flushed": "0x8000\n([], [], [])",
    "refused": "No such file or directory\nanon_inode:[fanotify]",
    "ordinary": "0x100 0x100 0x100\n0x200\n0x200\n0x200\nanon_inode:[fanotify]",
}
NOT_EXACT = {
    "handed": "a FUSE file is given to one process only",
    "epoll": "of a FUSE file an edge may be told twice",
}


@pytest.fixture(scope="module")
def fs(file_systems: None) -> Iterator[Scratch]:
    with scratch("ext4") as fs:
        yield fs


@BOTH
@pytest.mark.threat("own-group", "waiting-for-group")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_seen_is_the_kernels(fs: Scratch, way: str, options: tuple[str, ...]) -> None:
    require_exact_kernel()
    if options and way in NOT_EXACT:
        skip(NOT_EXACT[way], expected=True)
    trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    client = [sys.executable, str(SOURCES / "adopted.py"), way, str(fs.mount_point), trigger]
    native, ours = (
        subprocess.run(
            command, capture_output=True, text=True, timeout=2 * DEADLINE_SECONDS, check=False
        )
        for command in (client, under_exec(*client, options=options))
    )
    assert native.stderr == told(ours.stderr) == ""
    assert WAYS[way] in native.stdout
    assert "nothing came" not in native.stdout
    assert (ours.returncode, ours.stdout) == (native.returncode, native.stdout)


@pytest.mark.parametrize("way", ["epoll", "copies", "handed", "unread"])
def test_where_kcmp_is_forbidden(fs: Scratch, way: str) -> None:
    """As without CONFIG_KCMP; Linux 6.10 has another way to compare descriptors."""
    require_exact_kernel()
    if kernel_version() < (6, 10):
        skip("this kernel has kcmp(2) only", expected=True)
    trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    client = [sys.executable, str(SOURCES / "adopted.py"), way, str(fs.mount_point), trigger]
    done = subprocess.run(
        under_exec(*client),
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
        check=True,
        preexec_fn=without(NR_KCMP),
    )
    assert told(done.stderr) == ""
    assert WAYS[way] in done.stdout


@BOTH
@pytest.mark.threat("permissions")
def test_who_answers_for_opens_is_not_asked_by_us(fs: Scratch, options: tuple[str, ...]) -> None:
    """While its only thread waits for the supervisor it cannot answer what that opens."""
    require_exact_kernel()
    trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    client = [sys.executable, str(SOURCES / "permissions.py"), str(fs.mount_point), trigger]
    native, ours = (
        subprocess.run(
            ["unshare", "--mount", *command],
            stdout=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        for command in (client, under_exec(*client, options=options))
    )
    assert native.stdout.splitlines()[0] == "asked"
    assert native.stdout.splitlines()[-1] == "0x8000"
    assert (ours.returncode, ours.stdout) == (native.returncode, native.stdout)
