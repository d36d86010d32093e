"""What every command needs of its surroundings: procfs, and descriptors."""

from __future__ import annotations

import errno
import os
import resource

from fserr_bpf.errors import FserrError, KernelError

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


def require_procfs() -> None:
    """KernelError unless this process finds itself in /proc."""
    if not os.path.exists("/proc/self/mountinfo"):
        raise KernelError(
            "/proc is not the procfs of this process's pid namespace", "mount -t proc proc /proc"
        )


def require_descriptors(count: int) -> None:
    """FserrError unless so many more files can be opened."""
    used = len(os.listdir("/proc/self/fd"))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and used + count > soft:
        raise out_of_descriptors(errno.EMFILE)


def out_of_descriptors(code: int | None) -> FserrError:
    """What one of the two errors of ``OUT_OF_DESCRIPTORS`` says."""
    if code == errno.ENFILE:
        return FserrError("too many files are open on this system", "raise fs.file-max")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FserrError(f"{soft} open files are not enough", "raise the limit with ulimit -n")
