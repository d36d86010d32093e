"""What ``fserr-bpf exec`` needs is asked before the client starts, and said in one line."""

from __future__ import annotations

import ctypes
import errno
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fserr_bpf.errors import KernelError, PrivilegeError
from fserr_bpf.kernel.libc import check, libc, syscall
from fserr_bpf.uapi.seccomp import (
    BPF_JMP_JEQ_K,
    BPF_LD_W_ABS,
    BPF_RET_K,
    NR_SECCOMP,
    SECCOMP_RET_ALLOW,
    SECCOMP_SET_MODE_FILTER,
    SOCK_FILTER,
)
from fserr_bpf_compare.faults.scratch import scratch
from tests.exec_clients import COMPILER, compile_c, under_exec
from tests.live.conftest import require_mark
from tests.live.exec_scenarios import GROUP

pytestmark = pytest.mark.root

NR_PROCESS_VM_READV, NR_PIDFD_GETFD, NR_FSOPEN = 310, 438, 430
RET_ERRNO = 0x00050000
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# as Python's own, and without the environment's site-packages, which nobody may not read
LOOK = (
    "import sys; sys.path.insert(0, {!r})\n"
    "from fserr_bpf.errors import FserrError\n"
    "from fserr_bpf.kernel import procfs\n"
    "try: procfs.directory(); print('ours')\n"
    "except FserrError as error: print(error)\n"
)


def refused(command: list[str], preexec: Callable[[], None] | None = None) -> tuple[int, str]:
    """Exit status and standard error; nothing may be on standard output."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=preexec,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def without(*numbers: int) -> Callable[[], None]:
    """Has these system calls fail with EPERM, as the filter of a container does."""

    def install() -> None:
        code = [(BPF_LD_W_ABS, 0, 0, 0)]
        for at, number in enumerate(numbers):
            code.append((BPF_JMP_JEQ_K, len(numbers) - at, 0, number))
        code += [(BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW), (BPF_RET_K, 0, 0, RET_ERRNO | errno.EPERM)]
        text = b"".join(SOCK_FILTER.pack(*line) for line in code)
        buffer = ctypes.create_string_buffer(text)
        program = (ctypes.c_uint64 * 2)(len(code), ctypes.addressof(buffer))
        check(libc.prctl(38, 1, 0, 0, 0))
        syscall(NR_SECCOMP, SECCOMP_SET_MODE_FILTER, 0, program)

    return install


@pytest.mark.threat("needs")
@pytest.mark.parametrize(
    "capability", ["sys_ptrace", "sys_chroot", "setuid", "setgid", "dac_read_search"]
)
def test_capability_that_is_missing(capability: str) -> None:
    command = ["setpriv", f"--bounding-set=-{capability}", *under_exec("echo", "started")]
    wanted = f"fserr-bpf: exec needs CAP_{capability.upper()}; run as root with all capabilities\n"
    assert refused(command) == (PrivilegeError.exit_code, wanted)


@pytest.mark.threat("needs")
@pytest.mark.parametrize(
    ("number", "what"), [(NR_PROCESS_VM_READV, "memory"), (NR_PIDFD_GETFD, "descriptors")]
)
def test_what_root_may_not_either(number: int, what: str) -> None:
    """As with yama's ptrace_scope of 3, or in a container."""
    assert refused(under_exec("echo", "started"), without(number)) == (
        PrivilegeError.exit_code,
        f"fserr-bpf: the {what} of a client cannot be read (Operation not permitted); "
        "run as root with CAP_SYS_PTRACE and kernel.yama.ptrace_scope below 3\n",
    )


@pytest.mark.threat("own-procfs")
def test_proc_of_another_pid_namespace_is_refused_where_none_can_be_mounted() -> None:
    command = ["unshare", "--pid", "--fork", *under_exec("echo", "started")]
    assert refused(command, without(NR_FSOPEN)) == (
        KernelError.exit_code,
        "fserr-bpf: /proc is not the procfs of this pid namespace; "
        "mount one there: unshare --mount-proc, or mount -t proc proc /proc\n",
    )


@pytest.mark.threat("own-procfs")
@pytest.mark.parametrize("who", [(), AS_NOBODY], ids=["root", "nobody"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ((), "ours"),
        (("unshare", "-pf", "--mount-proc"), "ours"),
        (("unshare", "-pf"), "/proc is not the procfs of this pid namespace; mount one there"),
        (
            ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /proc; exec "$@"', "sh"),
            "/proc is no procfs; mount one there",
        ),
    ],
    ids=["here", "own", "foreign", "none"],
)
def test_a_procfs_is_recognized(
    who: tuple[str, ...], place: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Who may mount needs none that is mounted."""
    script = LOOK.format(str(Path(__file__).parents[2]))
    command = [*place, *who, "/usr/bin/python3", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.startswith("ours" if not who else said)


@pytest.mark.threat("own-procfs")
@pytest.mark.usefixtures("scratch_space")
@pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)")
@pytest.mark.parametrize("place", [("-pf",), ("-pf", "--mount-proc")], ids=["foreign", "own"])
def test_exec_in_a_pid_namespace_of_its_own(tmp_path: Path, place: tuple[str, ...]) -> None:
    """Also with the /proc of the one around it: numbers, and what /proc/self means."""
    require_mark()
    reader = compile_c(tmp_path, "reader")
    with scratch("ext4") as fs:
        client = [
            *(str(reader), GROUP, f"mark:0x101:0x8000:{fs.mount_point}"),
            *("mark:0x1:0x20:/proc/self/exe", "mark:0x1:0x20:/proc/self/fd/99", "pid"),
            f"cause:1:/sys/fs/ext4/{fs.device_name}/trigger_fs_error",
            *("await", "read:4096"),
        ]
        native, ours = (
            subprocess.run(
                ["unshare", *place, *command], capture_output=True, text=True, check=True
            ).stdout
            for command in (client, under_exec(*client))
        )
    assert ours == native
    assert " count=1 pid=1 " in ours
