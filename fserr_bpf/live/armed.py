"""Probes that are attached: what the monitor holds after the loader has left."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fserr_bpf import errors
from fserr_bpf.closing import Closing
from fserr_bpf.errors import AttachError, FserrError, KernelError, PrivilegeError
from fserr_bpf.live.probes import DETAIL, EXT4_EMITTERS, PLACES, PROBES, Kernel, Kind, wanted
from fserr_bpf.live.ring import Ring
from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.record import Probe

_MAX_FDS = 128
_MESSAGE = 1 << 16
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_CAP_SYS_ADMIN = 21


@dataclass(frozen=True)
class Attached:
    """A probe at one symbol or tracepoint."""

    probe: Probe
    kind: Kind
    target: str

    @property
    def source(self) -> str:
        """How an event names where it came from."""
        return f"{self.kind.replace(' ', '_')}:{self.target}"


def check_privileges() -> None:
    """PrivilegeError unless this process may load and attach BPF programs."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    capabilities = int(found.group(1), 16) if found else 0
    if not capabilities & (1 << _CAP_SYS_ADMIN):
        who = "not root" if os.geteuid() else "CAP_SYS_ADMIN is missing"
        raise PrivilegeError(who, "run with sudo, or give the container CAP_SYS_ADMIN")
    if _LOCKDOWN.exists() and "[confidentiality]" in _LOCKDOWN.read_text():
        raise PrivilegeError(
            "the kernel is locked down (confidentiality): BPF may not read kernel memory",
            "boot with lockdown=integrity or without lockdown",
        )


class Armed(Closing):
    """The probes of some streams, attached; they live until ``close()``.

    ``detail`` puts a side record behind every record, ``places`` a place. ``failed`` maps a
    probe that could not be attached to the reason. Raises FserrError subclasses:
    PrivilegeError, KernelError, BccError, AttachError.
    """

    def __init__(
        self,
        streams: Iterable[Stream],
        *,
        debug: bool = False,
        detail: bool = False,
        places: bool = False,
    ) -> None:
        if platform.machine() != "x86_64":
            raise KernelError(
                f"the probes know the registers of x86-64, not of {platform.machine()}",
                "run it on x86-64",
            )
        check_privileges()
        self.places = places
        extras = [*([DETAIL] if detail else []), *([PLACES] if places else [])]
        answer, fds, messages = _run_loader([*extras, *map(str, streams)])
        if debug and messages:
            print(messages, file=sys.stderr, end="")
        if "error" in answer:
            if debug:
                answer["cause"] = f"{answer['cause']}\n{messages}".rstrip()
            raise _rebuild(answer)
        self.kernel = Kernel(**answer["kernel"])
        self.wanted = frozenset(Probe(p) for p in answer["wanted"])
        self.failed = {Probe(f["probe"]): str(f["reason"]) for f in answer["failed"]}
        modules = {spec.probe: spec.module for spec in PROBES}
        self.unloaded = {modules[Probe(f["probe"])] for f in answer["failed"] if f["unloaded"]}
        self.ring = Ring(*fds[:3])
        self._fds = fds[3:]
        self._watched: dict[object, frozenset[int]] = {}
        self.attached = [
            Attached(Probe(a["probe"]), Kind(a["kind"]), a["target"]) for a in answer["attached"]
        ]
        # opened now, because not every user may open them later
        self._fdinfo = [
            os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC) for fd in fds[4::2]
        ]
        if not self.attached:
            self.close()
            reasons = sorted(set(self.failed.values()))
            raise AttachError("no probe could be attached", "; ".join(reasons))

    def blind(
        self, stream: Stream, *, kernel_group: bool, fstypes: Container[str] | None = None
    ) -> dict[str, list[str]]:
        """What ``stream`` cannot see here: reason -> what is missed.

        ``kernel_group``: the kernel's own events stand in for its ext4 probes.
        ``fstypes`` limits the answer to these types of file systems.
        """
        present = {a.probe for a in self.attached}
        covered = set(EXT4_EMITTERS | {Probe.FSERROR}) if kernel_group else set()
        if Probe.XFS_INODE_SICK in present:
            covered.add(Probe.XFS_INODE_VERIFIER)
        if Probe.XFS_BUF_TRACE in present:
            covered |= {Probe.XFS_BUF_IOERROR, Probe.XFS_BUF_VERIFIER}
        lacking = (wanted(stream, self.kernel) & self.failed.keys()) - covered
        missing: dict[str, list[str]] = {}
        for spec in PROBES:
            relevant = fstypes is None or not spec.module or spec.module in fstypes
            if spec.probe in lacking and relevant:
                missing.setdefault(self.failed[spec.probe], []).append(spec.blind)
        if not self.kernel.gate and "ext4" not in self.unloaded and not kernel_group:
            missing["this kernel's ext4 has no type information"] = [
                "that ext4 was shut down: what it keeps silent about then is reported"
            ]
        return missing

    def watch(self, owner: object, devices: Iterable[int]) -> None:
        """Let the reports of these superblocks (s_dev) pass, for one of the monitors."""
        self._watched[owner] = frozenset(devices)
        if not self._watched[owner]:
            del self._watched[owner]
        self.ring.mark(frozenset[int]().union(*self._watched.values()))

    def missed(self) -> dict[str, int]:
        """Runs of each probe that the kernel skipped (recursion), where it counts them.

        ``recursion_misses`` of the program's fdinfo, 5.12 and later.
        """
        counts = {}
        for attached, fd in zip(self.attached, self._fdinfo, strict=True):
            info = os.pread(fd, 4096, 0).decode()
            if found := re.search(r"^recursion_misses:\s*(\d+)", info, re.MULTILINE):
                counts[attached.source] = int(found.group(1))
        return counts

    def close(self) -> None:
        """Detach everything."""
        for fd in self._fds + self._fdinfo:
            os.close(fd)
        self._fds, self._fdinfo = [], []
        self.ring.close()


def _run_loader(arguments: list[str]) -> tuple[dict[str, Any], list[int], str]:
    """Answer, descriptors and everything that the loader and LLVM printed."""
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as output:
        with theirs:
            # -P: the current directory is anybody's, and this runs as root
            command = [sys.executable, "-P", "-m", "fserr_bpf.live.loader"]
            child = subprocess.Popen(
                [*command, str(theirs.fileno()), *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            data, fds, _, _ = socket.recv_fds(ours, _MESSAGE, _MAX_FDS)
        finally:
            if sys.exc_info()[0]:
                child.kill()
            child.wait()
        output.seek(0)
        messages = output.read().decode(errors="replace")
    if not data:
        last = messages.strip().splitlines()[-1:] or ["no message"]
        cause = f"the loader died with status {child.returncode}: {last[0]}"
        raise KernelError(cause, "run it with fserr-bpf --debug")
    for fd in fds:
        os.set_inheritable(fd, False)
    answer: dict[str, Any] = json.loads(data)
    return answer, fds, messages


def _rebuild(answer: dict[str, Any]) -> FserrError:
    kind: type[FserrError] = getattr(errors, answer["error"])
    return kind(answer["cause"], answer["remedy"])
