"""What of the host is in the way: read, never changed."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from fserr_bpf.doctor.finding import Finding, Level
from fserr_bpf.errors import FserrError
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.kernel.kallsyms import shows_addresses

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
# Either makes kprobes deaf while they stay attached.
_SWITCHES = (
    (Path("/proc/sys/kernel/ftrace_enabled"), "run sysctl kernel.ftrace_enabled=1"),
    (
        Path("/sys/kernel/debug/kprobes/enabled"),
        "run echo 1 > /sys/kernel/debug/kprobes/enabled",
    ),
)


def look_at_host() -> Iterator[Finding]:
    """Kernel, Python and what the administrator has switched."""
    yield _kernel()
    yield Finding(Level.OK, "python", f"{platform.python_version()} at {sys.executable}")
    if _LOCKDOWN.exists():
        mode = _LOCKDOWN.read_text().partition("[")[2].partition("]")[0]
        if mode == "confidentiality":
            remedy = "boot with lockdown=integrity or without lockdown"
            yield Finding(Level.PROBLEM, "lockdown", "BPF may not read kernel memory", remedy)
        else:
            yield Finding(Level.OK, "lockdown", mode or "none")
    if shows_addresses():
        yield Finding(Level.OK, "kptr_restrict", "addresses of the kernel can be read")
    else:
        remedy = "run as root, and sysctl kernel.kptr_restrict=1"
        hidden = "places in XFS stay addresses: the kernel hides the names of its functions"
        yield Finding(Level.NOTE, "kptr_restrict", hidden, remedy)
    yield from _switches()


def _kernel() -> Finding:
    release = f"Linux {os.uname().release}"
    try:
        accepts = kernel_accepts_fs_error()
    except FserrError as error:
        why = error.cause.removeprefix(": ")  # of a path that has no name
        return Finding(Level.PROBLEM, "kernel", f"{release}: {why}", error.remedy)
    if accepts:
        return Finding(Level.OK, "kernel", f"{release} accepts FAN_FS_ERROR")
    return Finding(
        Level.NOTE, "kernel", f"{release} does not know FAN_FS_ERROR: only probes report errors"
    )


def _switches() -> Iterator[Finding]:
    for path, remedy in _SWITCHES:
        subject = f"{path.parent.name}/{path.name}"
        try:
            on = path.read_text().strip() != "0"
        except OSError:  # a kernel without it, or debugfs is not mounted
            continue
        if on:
            yield Finding(Level.OK, subject, f"{path} is on")
        else:
            words = f"{path} is 0: attached probes report nothing"
            yield Finding(Level.PROBLEM, subject, words, remedy)
