"""Probes that are attached: what the monitor holds."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Container, Iterable

from fserr_bpf.closing import Closing
from fserr_bpf.errors import AttachError, KernelError, PrivilegeError
from fserr_bpf.kernel.capabilities import Capability, holds
from fserr_bpf.kernel.environment import require_procfs
from fserr_bpf.kernel.lockdown import is_confidential
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.coverage import not_seen
from fserr_bpf.probes.loader import Loader
from fserr_bpf.probes.obtain import obtain
from fserr_bpf.probes.ring import Ring
from fserr_bpf.probes.table import EXT4_EMITTERS, PROBES, ProbeSpec, wanted
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.record import Probe

_USUAL = ("ext4", "xfs", "btrfs")


def check_privileges() -> None:
    """PrivilegeError unless this process may load and attach BPF programs."""
    if not holds(Capability.SYS_ADMIN):
        who = "not root" if os.geteuid() else "CAP_SYS_ADMIN is missing"
        raise PrivilegeError(who, "run with sudo, or give the container CAP_SYS_ADMIN")
    if is_confidential():
        raise PrivilegeError(
            "the kernel is locked down (confidentiality): BPF may not read kernel memory",
            "boot with lockdown=integrity or without lockdown",
        )


class AttachedProbes(Closing):
    """The probes of some streams, attached; they live until ``close()``.

    ``detail`` has a detail record follow every record, ``places`` a place. ``failed`` maps a
    probe that could not be attached to the reason. ``notes``: what was found about the programs
    that are kept, in words. Raises FserrError subclasses: PrivilegeError, KernelError,
    BccError, AttachError.
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
                f"this machine is {platform.machine()}: the probes read the registers of x86-64",
                "run fserr-bpf on x86-64",
            )
        require_procfs()
        check_privileges()
        self.places = places
        compiled, self.notes = obtain(detail=detail, places=places, debug=debug)
        self._loader = Loader(compiled, list(streams), debug=debug)
        self.kernel = self._loader.kernel
        self.wanted = self._loader.wanted
        self.failed = self._loader.failed
        self.unloaded = self._loader.unloaded
        self.probes = self._loader.probes
        self._watched: dict[object, frozenset[Dev]] = {}
        self._fdinfo: list[int] = []
        try:
            if not self.probes:
                reasons = "; ".join(sorted(set(self.failed.values())))
                raise AttachError(
                    f"no probe could be attached: {reasons}",
                    "run fserr-bpf probes to see what each stream can have here",
                )
            # opened now, because not every user may open them later
            for fd in self._loader.programs:
                path = f"/proc/self/fdinfo/{fd}"
                self._fdinfo.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            maps = self._loader.maps
            self.ring = Ring(maps["events"], maps["lost"], maps["marks"])
            self._loader.close_maps()
        except BaseException:
            self._detach()
            raise

    def blind(
        self, stream: Stream, *, kernel_group: bool, fstypes: Container[str] | None = None
    ) -> dict[str, list[str]]:
        """What ``stream`` cannot see on this kernel: reason -> what is missed.

        ``kernel_group``: the kernel's own events stand in for its ext4 probes.
        ``fstypes`` limits the answer to these types of file systems.
        """
        present = {a.probe for a in self.probes}
        covered = set(EXT4_EMITTERS | {Probe.FSERROR}) if kernel_group else set()
        if Probe.XFS_INODE_SICK in present:
            covered.add(Probe.XFS_INODE_VERIFIER)
        if Probe.XFS_BUF_TRACE in present:
            covered |= {Probe.XFS_BUF_IOERROR, Probe.XFS_BUF_VERIFIER}
        lacking = (wanted(stream, self.kernel) & self.failed.keys()) - covered
        missing: dict[str, list[str]] = {}
        for spec in PROBES:
            if spec.probe in lacking and self._concerns(spec, fstypes):
                missing.setdefault(self.failed[spec.probe], []).append(spec.sees)
        if not self.kernel.gate and "ext4" not in self.unloaded and not kernel_group:
            missing["this kernel's ext4 has no type information"] = [
                "that ext4 was shut down: what it keeps silent about then is reported"
            ]
        return missing

    def not_seen(self, driver: str, stream: Stream, *, kernel_group: bool) -> tuple[str, ...]:
        """What ``stream`` does not have of file systems of ``driver``; see `blind`."""
        present = {a.probe for a in self.probes}
        if kernel_group:
            present |= EXT4_EMITTERS
        return not_seen(driver, stream, present & wanted(stream, self.kernel))

    def _concerns(self, spec: ProbeSpec, fstypes: Container[str] | None) -> bool:
        """Whether a probe is missed that is not there.

        Of file systems that few have nobody misses it before their module is loaded.
        """
        if not spec.module:
            return True
        if fstypes is None:
            return spec.module in _USUAL or not self.unloaded.intersection(spec.fstypes)
        return any(fstype in fstypes for fstype in spec.fstypes)

    def watch(self, owner: object, devices: Iterable[Dev]) -> None:
        """Let the reports of these superblocks pass, for one of the monitors."""
        self._watched[owner] = frozenset(devices)
        if not self._watched[owner]:
            del self._watched[owner]
        self.ring.mark(frozenset[Dev]().union(*self._watched.values()))

    def missed(self) -> dict[str, int]:
        """Runs of each probe that the kernel skipped (recursion), where it counts them.

        ``recursion_misses`` of the program's fdinfo, 5.12 and later.
        """
        counts = {}
        for attached, fd in zip(self.probes, self._fdinfo, strict=True):
            info = os.pread(fd, 4096, 0).decode()
            if found := re.search(r"^recursion_misses:\s*(\d+)", info, re.MULTILINE):
                counts[attached.source] = int(found.group(1))
        return counts

    def close(self) -> None:
        """Detach everything."""
        self._detach()
        self.ring.close()

    def _detach(self) -> None:
        self._loader.close()
        for fd in self._fdinfo:
            os.close(fd)
        self._fdinfo = []
