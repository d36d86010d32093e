"""The wrapper of the kernel's group: events, refusals, privileges."""

from __future__ import annotations

import errno
import os
import re
import select
import struct
from pathlib import Path

import pytest

from fserr_bpf.errors import FserrError, MarkError, PrivilegeError
from fserr_bpf.kernel.fanotify import FanotifyGroup, kernel_accepts_fs_error
from fserr_bpf.uapi.fanotify import FAN_REPORT_PIDFD
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import kernel_version, skip

pytestmark = pytest.mark.root

TRIGGER = next(fault for fault in FAULTS if fault.name == "ext4_trigger")
FAN_CREATE = 0x100
FAN_ONDIR = 0x40000000
NOBODY = 65534


def require_fs_error() -> None:
    if not kernel_accepts_fs_error():
        skip("this kernel has no FAN_FS_ERROR", expected=kernel_version() < (5, 16))


def errno_of(error: FserrError) -> int | None:
    assert isinstance(error.__cause__, OSError)
    return error.__cause__.errno


def poll(group: FanotifyGroup, milliseconds: int) -> list[tuple[int, int]]:
    poller = select.poll()
    poller.register(group, select.POLLIN)
    return poller.poll(milliseconds)


def test_accepts_what_the_version_promises() -> None:
    if kernel_version() >= (5, 16):
        assert kernel_accepts_fs_error()
    elif kernel_version() != (5, 10):  # 5.10.220 has it from a backport
        assert not kernel_accepts_fs_error()


@pytest.mark.usefixtures("scratch_space")
def test_marked_file_system_is_heard_from_then_on() -> None:
    require_fs_error()
    with scratch("ext4") as fs, FanotifyGroup() as group:
        path = str(fs.mount_point)
        TRIGGER.cause(fs)
        assert group.read() == b""
        group.mark(path)
        TRIGGER.cause(fs)
        assert poll(group, 10_000) == [(group.fileno(), select.POLLIN)]
        with pytest.raises(OSError, match="Invalid argument") as refused:
            group.read(55)
        assert refused.value.errno == errno.EINVAL
        assert len(group.read(56)) == 56
        assert group.read() == b""


@pytest.mark.usefixtures("scratch_space")
def test_extra_flags_reach_the_kernel() -> None:
    require_fs_error()
    with scratch("ext4") as fs, FanotifyGroup(FAN_REPORT_PIDFD) as group:
        group.mark(str(fs.mount_point))
        TRIGGER.cause(fs)
        poll(group, 10_000)
        event = group.read()
        # The pidfd record, eight bytes, lies between the FID and ERROR records.
        assert len(event) == 64
        assert event[44:48] == struct.pack("<BBH", 4, 0, 8)
        (pidfd,) = struct.unpack_from("<i", event, 48)
        if pidfd >= 0:  # since 7.2 also for a process that is gone
            os.close(pidfd)


@pytest.mark.usefixtures("scratch_space")
def test_other_masks_can_be_marked() -> None:
    with scratch("ext4") as fs, FanotifyGroup() as group:
        group.mark(str(fs.mount_point), FAN_CREATE | FAN_ONDIR)
        (fs.mount_point / "new").mkdir()
        event = group.read()
        assert struct.unpack_from("<Q", event, 8) == (FAN_CREATE | FAN_ONDIR,)


@pytest.mark.parametrize(
    ("path", "number", "text"),
    [
        ("/nonexistent", errno.ENOENT, "no such file or directory"),
        ("/proc/version/below", errno.ENOTDIR, "Not a directory"),
    ],
)
def test_refusal_has_errno_cause_and_remedy(path: str, number: int, text: str) -> None:
    require_fs_error()
    with FanotifyGroup() as group, pytest.raises(MarkError) as refused:
        group.mark(path)
    assert errno_of(refused.value) == number
    assert str(refused.value).startswith(f"{path}: {text}; ")
    assert refused.value.remedy
    assert "\n" not in str(refused.value)


def test_file_system_without_handles_is_refused() -> None:
    require_fs_error()
    with FanotifyGroup() as group, pytest.raises(MarkError) as refused:
        group.mark("/proc")
    # Old kernels give such file systems no fsid either, and look at that first.
    number = errno.EOPNOTSUPP if os.statvfs("/proc").f_fsid else errno.ENODEV
    assert errno_of(refused.value) == number
    assert re.fullmatch("/proc: the file system .*(file handles|no fsid); .*", str(refused.value))


def test_descriptor_is_closed_and_never_inherited() -> None:
    with FanotifyGroup() as group:
        descriptor = group.fileno()
        assert not os.get_inheritable(descriptor)
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert str(target) == "anon_inode:[fanotify]"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_without_privilege_it_says_so() -> None:
    child = os.fork()
    if child == 0:
        # Only exit codes may leave the child: pytest's state belongs to the parent.
        code = 1
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with FanotifyGroup() as group:
                group.mark("/")
        except PrivilegeError as error:
            code = 0 if "run as root" in str(error) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
