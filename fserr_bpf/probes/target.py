"""What programs are compiled for: a kernel, options, and our own sources; and the key of it all.

Two targets with one key have the same programs. The key is made from files as they are:
reading what is in the BTF takes longer than reading it.
"""

from __future__ import annotations

import os
import platform
from _blake2 import blake2b  # hashlib's own; that one maps all of OpenSSL beside it
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf.errors import KernelError
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf.probes.headers import trace_formats

MODULES = ("ext4", "xfs", "btrfs", "f2fs")
"""Of which the type information is read, where they are loaded."""
# in the order in which they use each other
HEADERS = (
    *("fserr.h", "entry.h", "common.h", "task.h", "vfs.h", "ext4.h", "xfs.h", "btrfs.h"),
    *("fill_record.h", "fill_detail.h", "fill_place.h", "emit.h", "end.h", "f2fs.h"),
)
SOURCES = (
    *("ext4.c", "ext4_end.c", "xfs.c", "xfs_end.c", "xfs_trace.c", "writeback.c", "btrfs.c"),
    *("f2fs.c", "others.c", "fserror.c", "lifetime.c", "canary.c"),
)
# of this folder: what the compiler is given besides these, and what is taken from it
_MAKERS = ("btf.py", "compiler.py", "headers.py", "programs.py", "table.py")

_KERNEL_BTF = Path("/sys/kernel/btf")
_FILESYSTEMS = Path("/proc/filesystems")
# PROC_PID_INIT_INO, include/linux/proc_ns.h
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_PIECE = 1 << 16

# arguments of the compiler's process
DETAIL, PLACES = "detail", "places"

Key = dict[str, str]
"""Each thing that the programs depend on, by name."""


@dataclass(frozen=True)
class Target:
    """A kernel, and what its programs are to do.

    ``btf``: a folder with its type information, as ``/sys/kernel/btf``. ``loaded``: which of
    `MODULES` it has. ``detail`` and ``places``: what follows each record in the ring.
    ``pid_namespace``: inode number of the one that reports are for, 0 for the initial one.
    ``running``: it is this kernel, which can be asked for more than its type information.
    """

    btf: Path
    release: str
    machine: str
    loaded: frozenset[str]
    kprobes: bool
    detail: bool
    places: bool
    pid_namespace: int = 0
    running: bool = False

    @classmethod
    def here(cls, *, detail: bool, places: bool) -> Target:
        """The kernel that runs, and the pid namespace that this process is in."""
        namespace = os.stat("/proc/self/ns/pid").st_ino
        return cls(
            _KERNEL_BTF,
            platform.release(),
            platform.machine(),
            frozenset(MODULES).intersection(_FILESYSTEMS.read_text().split()),
            KPROBE_PMU.exists(),
            detail,
            places,
            0 if namespace == _INITIAL_PID_NAMESPACE else namespace,
            running=True,
        )

    def has_btf(self, module: str) -> bool:
        """Whether a module has type information of its own, not that of vmlinux."""
        return module in self.loaded and (self.btf / module).exists()

    @property
    def needs_tracefs(self) -> bool:
        """Whether XFS is seen by what tracefs says of a tracepoint, for want of its types."""
        return self.running and "xfs" in self.loaded and not self.has_btf("xfs")

    def key(self) -> Key:
        """What the programs depend on. Raises KernelError where the kernel has no BTF."""
        modules = {name: self._key_of_module(name) for name in MODULES}
        return {
            "release": self.release,
            "machine": self.machine,
            "vmlinux": _digest_of(self.btf / "vmlinux"),
            **modules,
            "tracepoints": digest(trace_formats()) if self.needs_tracefs else "",
            "sources": _digest(path.read_bytes() for path in _source_files()),
            "kprobes": str(self.kprobes),
            "detail": str(self.detail),
            "places": str(self.places),
            "pid namespace": str(self.pid_namespace),
        }

    def _key_of_module(self, name: str) -> str:
        if name not in self.loaded:
            return "not loaded"
        return _digest_of(self.btf / name) if self.has_btf(name) else "no BTF of its own"


def sources() -> Path:
    """The ``bpf/`` folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def digest(data: bytes) -> str:
    """BLAKE2b of 256 bits, in hexadecimal: ``b2sum -l 256``."""
    return _digest([data])


def _digest(pieces: Iterable[bytes]) -> str:
    state = blake2b(digest_size=32)
    for piece in pieces:
        state.update(piece)
    return state.hexdigest()


def _digest_of(btf: Path) -> str:
    try:
        with btf.open("rb", buffering=0) as file:
            return _digest(iter(lambda: file.read(_PIECE), b""))
    except OSError as error:
        raise KernelError(
            f"cannot read the kernel's type information {btf} ({error.strerror})",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF (every Debian kernel since 5.10)",
        ) from None


def _source_files() -> Iterable[Path]:
    folder = sources()
    yield from (folder / name for name in (*HEADERS, *SOURCES))
    yield from sorted((folder / "include").rglob("*.h"))
    yield from (Path(__file__).with_name(name) for name in _MAKERS)
