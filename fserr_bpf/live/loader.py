"""The loader process: compile with bcc, attach, hand the descriptors over, leave.

bcc maps LLVM, some 70 MB that the monitor must not carry, so it lives here. Run
as ``python -m fserr_bpf.live.loader FD [detail] [places] STREAM...``: FD is one end of a socket
pair, over which one JSON message and the descriptors go back (SCM_RIGHTS). The
probes live as long as somebody holds their descriptors.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import socket
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from fserr_bpf.errors import BccError, FserrError
from fserr_bpf.live.btf import Btf
from fserr_bpf.live.headers import kernel_types, version_code
from fserr_bpf.live.probes import (
    DETAIL,
    PLACES,
    PROBES,
    Attachment,
    Kernel,
    Kind,
    ProbeSpec,
    wanted,
)
from fserr_bpf.model.stream import Stream

APT_LINE = "apt install python3-bpfcc, and run the Python that sees it (Debian's /usr/bin/python3)"
KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe/type")
SOURCES = ("ext4.c", "xfs.c", "xfs_trace.c", "writeback.c", "btrfs.c", "fserror.c", "lifetime.c")
MODULES = ("ext4", "xfs", "btrfs")


def sources() -> Path:
    """The ``bpf/`` folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def program_text(folder: Path, types: str, functions: Collection[str]) -> str:
    """``types`` and all C sources as one text; of the probes' functions ``functions`` are kept.

    bcc rewrites map operations in the main text only, not in what it includes. The
    other functions become static: the compiler checks them and generates nothing,
    which saves a quarter of the start-up.
    """
    known = {a.function for spec in PROBES for a in spec.attachments}
    unused = "".join(
        f"#define {name} __attribute__((unused)) static {name}\n"
        for name in sorted(known.difference(functions))
    )
    head = f"#include <linux/ptrace.h>\n{types}"
    names = ("fserr.h", "side.h", "compat.h", "detail.h", "emit.h", *SOURCES)
    texts = [f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in names]
    return "".join([head, unused, *texts])


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


def _has_ext4_abort(ext4: Btf) -> bool:
    """Whether ext4 has __ext4_abort(); by name where its module carries no BTF."""
    if ext4.parameters("__ext4_error") is not None:
        return ext4.parameters("__ext4_abort") is not None
    return b" __ext4_abort\t" in Path("/proc/kallsyms").read_bytes()


class Loader:
    """One compiled object and what of it could be attached."""

    def __init__(
        self, streams: Sequence[Stream], *, detail: bool = False, places: bool = False
    ) -> None:
        vmlinux = Btf()
        btf = {"": vmlinux} | {name: Btf(name, vmlinux) for name in MODULES}
        abort = _has_ext4_abort(btf["ext4"])
        types = kernel_types(btf, abort=abort)
        if detail:
            types += "#define FSERR_DETAIL 1\n"
        if places:
            types += "#define FSERR_PLACES 1\n"
        self.kernel = Kernel(
            kprobes=KPROBE_PMU.exists(),
            fserror="HAVE_fserror_event_work" in types,
            abort=abort,
            sick=btf["xfs"].parameters("xfs_btree_mark_sick") is not None,
            gate="HAVE_ext4_sb_info_s_ext4_flags" in types,
        )
        self.wanted = frozenset[Any]().union(*(wanted(s, self.kernel) for s in streams))
        self._have = {line.split()[1] for line in types.splitlines() if "define HAVE_" in line}
        self._registered = Path("/proc/filesystems").read_text().split()
        self._bpf = self._compile(types)
        self.attached: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.fds: list[int] = [self._bpf[name].map_fd for name in ("events", "lost", "marks")]
        for spec in PROBES:
            if spec.probe in self.wanted:
                self._attach(spec)

    def _compile(self, types: str) -> Any:
        bcc = import_bcc()
        # a kernel source tree in the eyes of bcc: the fixed headers are all of it
        os.environ["BCC_KERNEL_SOURCE"] = str(sources())
        used = [s for s in PROBES if s.probe in self.wanted and not self._impossible(s)]
        functions = {a.function for s in used for a in self._attempts(s)}
        text = program_text(sources(), types, functions)
        version = f"-DLINUX_VERSION_CODE={version_code(platform.release())}"
        try:
            # debug information would take 70 ms; it names source lines for the verifier
            return bcc.BPF(text=text, cflags=["-g0", version])
        except Exception as error:  # bcc raises bare Exception
            raise BccError(
                f"bcc could not compile the probes ({error})",
                "run it with fserr-bpf --debug and report the compiler's messages",
            ) from error

    def _attach(self, spec: ProbeSpec) -> None:
        unloaded = bool(spec.module) and spec.module not in self._registered
        reason = self._impossible(spec)
        if not reason:
            done = 0
            for attachment in self._attempts(spec):
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

    def _attempts(self, spec: ProbeSpec) -> list[Attachment]:
        """The attachments of the best kind that this kernel can have."""
        kinds = [Kind.CLASSIC]
        if not self._lacking(spec):
            kinds = [Kind.KPROBE] if self.kernel.kprobes else []
            kinds.append(Kind.TRACEPOINT)
        for kind in kinds:
            if found := [a for a in spec.attachments if a.kind is kind]:
                return found
        return []

    def _lacking(self, spec: ProbeSpec) -> list[str]:
        return [need for need in spec.needs if f"HAVE_{need}" not in self._have]

    def _impossible(self, spec: ProbeSpec) -> str:
        if spec.module and spec.module not in self._registered:
            return f"{spec.module} is not loaded (modprobe {spec.module} and start again)"
        if self._attempts(spec):
            return ""
        if self._lacking(spec):
            return f"this kernel's {spec.module or 'vmlinux'} has no type information for it"
        return "the kernel has no kprobes"

    def _attach_one(self, spec: ProbeSpec, attachment: Attachment) -> None:
        target, function = attachment.target.encode(), attachment.function.encode()
        if attachment.kind is Kind.KPROBE:
            program = self._bpf.load_func(function, 2).fd  # BPF.KPROBE
            self._bpf.attach_kprobe(event=target, fn_name=function)
            (fd,) = self._bpf.kprobe_fds[b"p_" + target].values()
        elif attachment.kind is Kind.CLASSIC:
            program = self._bpf.load_func(function, 5).fd  # BPF.TRACEPOINT
            self._bpf.attach_tracepoint(tp=target, fn_name=function)
            fd = self._bpf.tracepoint_fds[target]
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
        streams = [Stream(name) for name in arguments[1:] if name not in (DETAIL, PLACES)]
        loader = Loader(streams, detail=DETAIL in arguments, places=PLACES in arguments)
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
