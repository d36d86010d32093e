"""The loader process: compile with bcc, attach, hand the descriptors over, leave.

bcc maps LLVM, some 70 MB that the monitor must not carry, so it lives here. Run
as ``python -m fserr_bpf.live.loader FD STREAM...``: FD is one end of a socket
pair, over which one JSON message and the descriptors go back (SCM_RIGHTS). The
probes live as long as somebody holds their descriptors.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fserr_bpf.errors import BccError, FserrError
from fserr_bpf.live.btf import Btf
from fserr_bpf.live.headers import kernel_types, write_tree
from fserr_bpf.live.probes import PROBES, Attachment, Kernel, Kind, ProbeSpec, wanted
from fserr_bpf.model.stream import Stream

APT_LINE = "apt install python3-bpfcc, and run the Python that sees it (Debian's /usr/bin/python3)"
KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe/type")
SOURCES = ("ext4.c", "xfs.c", "writeback.c", "btrfs.c", "fserror.c", "lifetime.c")
MODULES = ("ext4", "xfs", "btrfs")


def sources() -> Path:
    """The ``bpf/`` folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def program_text(folder: Path) -> str:
    """All C sources as one text.

    bcc rewrites map operations in the main text only, not in what it includes.
    """
    head = "#include <linux/ptrace.h>\n#include <linux/fserr_types.h>\n#define FSERR_PROBE_MAX 32\n"
    names = ("fserr.h", "compat.h", "emit.h", *SOURCES)
    return head + "".join(f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in names)


def import_bcc() -> Any:
    """Debian's bcc module; BccError when it is missing or PyPI's unrelated one."""
    try:
        bcc = importlib.import_module("bcc")
    except ImportError as error:
        raise BccError(f"bcc cannot be imported ({error})", APT_LINE) from None
    if not hasattr(bcc, "BPF"):
        raise BccError(
            f"the module bcc at {bcc.__file__} is not the BPF Compiler Collection",
            f"remove it (pip uninstall bcc) and {APT_LINE}",
        )
    return bcc


class Loader:
    """One compiled object and what of it could be attached."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        vmlinux = Btf()
        btf = {"": vmlinux} | {name: Btf(name, vmlinux) for name in MODULES}
        types = kernel_types(btf)
        self.kernel = Kernel(
            kprobes=KPROBE_PMU.exists(),
            fserror="HAVE_fserror_event_work" in types,
            abort=btf["ext4"].parameters("__ext4_abort") is not None,
            sick=btf["xfs"].parameters("xfs_btree_mark_sick") is not None,
        )
        self.wanted = frozenset[Any]().union(*(wanted(s, self.kernel) for s in streams))
        self._have = {line.split()[1] for line in types.splitlines() if "define HAVE_" in line}
        self._registered = Path("/proc/filesystems").read_text().split()
        self._bpf = self._compile(types)
        self.attached: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.fds: list[int] = [self._bpf["events"].map_fd, self._bpf["lost"].map_fd]
        for spec in PROBES:
            if spec.probe in self.wanted:
                self._attach(spec)

    def _compile(self, types: str) -> Any:
        bcc = import_bcc()
        with tempfile.TemporaryDirectory(prefix="fserr-bpf.") as directory:
            write_tree(Path(directory), sources(), types)
            os.environ["BCC_KERNEL_SOURCE"] = directory
            try:
                return bcc.BPF(text=program_text(sources()))
            except Exception as error:  # bcc raises bare Exception
                raise BccError(
                    f"bcc could not compile the probes ({error})",
                    "run with --debug and report the compiler's messages",
                ) from error

    def _attach(self, spec: ProbeSpec) -> None:
        unloaded = bool(spec.module) and spec.module not in self._registered
        reason = self._impossible(spec)
        if not reason:
            kinds = {a.kind for a in spec.attachments}
            use = Kind.KPROBE if Kind.KPROBE in kinds and self.kernel.kprobes else Kind.TRACEPOINT
            attempts = [a for a in spec.attachments if a.kind is use]
            reason = "the kernel has no kprobes" if not attempts else ""
            done = 0
            for attachment in attempts:
                if done and not spec.every:
                    break
                try:
                    self._attach_one(spec, attachment)
                    done += 1
                except Exception as error:  # bcc raises bare Exception
                    reason = str(error) or type(error).__name__
            if done:
                return
        self.failed.append({"probe": spec.probe, "reason": reason, "unloaded": unloaded})

    def _impossible(self, spec: ProbeSpec) -> str:
        if spec.module and spec.module not in self._registered:
            return f"{spec.module} is not loaded (modprobe {spec.module} and start again)"
        lacking = [need for need in spec.needs if f"HAVE_{need}" not in self._have]
        if lacking:
            return f"no type information for {lacking[0]} in this kernel's {spec.module} module"
        return ""

    def _attach_one(self, spec: ProbeSpec, attachment: Attachment) -> None:
        target, function = attachment.target.encode(), attachment.function.encode()
        if attachment.kind is Kind.KPROBE:
            program = self._bpf.load_func(function, 2).fd  # BPF.KPROBE
            self._bpf.attach_kprobe(event=target, fn_name=function)
            (fd,) = self._bpf.kprobe_fds[b"p_" + target].values()
        else:
            program = self._bpf.load_func(function, 17).fd  # BPF.RAW_TRACEPOINT
            self._bpf.attach_raw_tracepoint(tp=target, fn_name=function)
            fd = self._bpf.raw_tracepoint_fds[target]
        self.attached.append(
            {"probe": spec.probe, "kind": attachment.kind, "target": attachment.target}
        )
        self.fds += [fd, program]


def main(arguments: Sequence[str]) -> int:
    """Entry point of the loader process; answers over the socket, never on stdout."""
    channel = socket.socket(fileno=int(arguments[0]))
    try:
        loader = Loader([Stream(name) for name in arguments[1:]])
    except FserrError as error:
        answer: dict[str, Any] = {
            "error": type(error).__name__,
            "cause": error.cause,
            "remedy": error.remedy,
        }
        channel.sendall(json.dumps(answer).encode())
        return error.exit_code
    answer = {
        "kernel": vars(loader.kernel),
        "wanted": sorted(loader.wanted),
        "attached": loader.attached,
        "failed": loader.failed,
    }
    socket.send_fds(channel, [json.dumps(answer).encode()], loader.fds)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # bcc's exit handlers would tear the probes down
