"""The kernels under test, as data: which Debian package, from where, and why it is here."""

from __future__ import annotations

from dataclasses import dataclass

from fserr_bpf.errors import LabError


@dataclass(frozen=True)
class Kernel:
    """One stock kernel: the newest generic package that matches ``package``.

    ``name`` is what users type (``--kernel 6.12``); ``package`` is a regular
    expression for the whole name of the image package, written so that the cloud,
    rt, unsigned and debug flavours do not match; ``suites`` are the Debian suites
    that may hold it.
    """

    name: str
    package: str
    suites: tuple[str, ...]
    reason: str


def _generic(release: str) -> str:
    return rf"linux-image-{release}\.[0-9][0-9a-z.+-]*?(?<!-cloud)(?<!-rt)-amd64"


KERNELS = (
    Kernel(
        "5.10.218",
        r"linux-image-5\.10\.0-30-amd64",
        ("bullseye",),
        "the last 5.10 without FAN_FS_ERROR: the kernel itself refuses the mark",
    ),
    Kernel(
        "5.10",
        r"linux-image-5\.10\.0-[0-9]+-amd64",
        ("bullseye-security",),
        "Debian 11: FAN_FS_ERROR by backport, __ext4_abort(), modules without BTF",
    ),
    Kernel(
        "6.1",
        _generic(r"6\.1"),
        ("bookworm", "bookworm-security"),
        "Debian 12; no tracepoint for XFS sick inodes: kprobes needed",
    ),
    Kernel(
        "6.12",
        _generic(r"6\.12"),
        ("trixie", "trixie-security"),
        "Debian 13; XFS health tracepoints, ext4 reports to fanotify itself",
    ),
    Kernel(
        "6.18",
        _generic(r"6\.18"),
        ("trixie-backports",),
        "ext4 emergency state, XFS groups, verifiers in the reader's context",
    ),
    Kernel(
        "7.2",
        _generic(r"7\.2"),
        ("sid",),
        "fserror_report() of XFS, iomap and f2fs: errors arrive from workers",
    ),
    Kernel(
        "7",
        _generic(r"7"),
        ("trixie-backports", "sid"),
        "the newest 7.x of the archive when it was fetched",
    ),
)


def find(name: str) -> Kernel:
    """The kernel called ``name``; `LabError` names the known ones if there is none."""
    for kernel in KERNELS:
        if kernel.name == name:
            return kernel
    known = ", ".join(kernel.name for kernel in KERNELS)
    raise LabError(f"the lab has no kernel called {name!r}", f"use one of {known}")
