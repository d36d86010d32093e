"""Maps, programs and what attaches them: from compiled programs to probes that run.

Probes live as long as somebody holds their descriptors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf.closing import Closing
from fserr_bpf.errors import KernelError, PrivilegeError
from fserr_bpf.kernel import bpf
from fserr_bpf.kernel.environment import OUT_OF_DESCRIPTORS
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.programs import Programs
from fserr_bpf.probes.table import (
    PROBES,
    Attachment,
    Kind,
    ProbeSpec,
    candidates,
    missing_types,
    wanted,
)
from fserr_bpf.uapi.bpf import ProgType
from fserr_bpf.uapi.record import Probe


@dataclass(frozen=True)
class AttachedProbe:
    """A probe at one symbol or tracepoint.

    ``number``: which attachment of its kind that is in the table.
    """

    probe: Probe
    kind: Kind
    target: str
    number: int = 0

    @property
    def source(self) -> str:
        """How an event names where it came from."""
        return f"{self.kind.replace(' ', '_')}:{self.target}"


class Loader(Closing):
    """The probes of some streams, loaded and attached as far as that goes; until ``close()``.

    ``probes`` are attached, ``programs`` their descriptors; ``failed`` maps those that are not
    to the reason, ``unloaded`` names the file systems whose modules were not there. ``maps``
    are descriptors by name. ``debug``: what the kernel's verifier says goes to standard error.
    Raises KernelError or PrivilegeError for the maps.
    """

    def __init__(
        self, compiled: Programs, streams: Sequence[Stream], *, debug: bool = False
    ) -> None:
        self.kernel = compiled.kernel
        self.wanted = frozenset[Probe]().union(*(wanted(s, self.kernel) for s in streams))
        self.probes: list[AttachedProbe] = []
        self.programs: list[int] = []
        self.failed: dict[Probe, str] = {}
        self.unloaded: set[str] = set()
        self.maps: dict[str, int] = {}
        self._links: list[int] = []
        self._compiled = compiled
        self._debug = debug
        self._filesystems = Path("/proc/filesystems").read_text().split()
        try:
            self._create_maps()
            for spec in PROBES:
                if spec.probe in self.wanted:
                    self._attach(spec)
        except BaseException:
            self.close()
            raise

    def _create_maps(self) -> None:
        try:
            for name, definition in self._compiled.maps.items():
                self.maps[name] = bpf.create_map(name, definition)
        except PermissionError as error:
            raise PrivilegeError(
                f"the kernel refuses BPF maps ({error.strerror})",
                "run as root, in a container with CAP_SYS_ADMIN and bpf(2) in its seccomp profile",
            ) from None
        except OSError as error:
            if error.errno in OUT_OF_DESCRIPTORS:
                raise
            cause = f"cannot create BPF maps ({error.strerror})"
            raise KernelError(cause, "free memory, then start fserr-bpf again") from None

    def _attach(self, spec: ProbeSpec) -> None:
        reason = self._why_not(spec)
        if not reason:
            done = 0
            for attachment in self._candidates(spec):
                if done and not spec.every:
                    break
                try:
                    self._attach_one(spec, attachment)
                    done += 1
                except OSError as error:
                    if error.errno in OUT_OF_DESCRIPTORS:
                        raise
                    reason = _reason(attachment, error)
            if done:
                return
        self.failed[spec.probe] = reason

    def _candidates(self, spec: ProbeSpec) -> list[Attachment]:
        found = candidates(spec, self._compiled.types, kprobes=self.kernel.kprobes)
        return [attachment for attachment in found if attachment.function in self._compiled.code]

    def _is_unloaded(self, spec: ProbeSpec) -> bool:
        return bool(spec.module) and not set(spec.fstypes).intersection(self._filesystems)

    def _why_not(self, spec: ProbeSpec) -> str:
        if self._is_unloaded(spec):
            self.unloaded.update(spec.fstypes)
            return f"module {spec.module} is not loaded (modprobe {spec.module}, then restart)"
        if self._candidates(spec):
            return ""
        if missing_types(spec, self._compiled.types):
            return f"this kernel's {spec.module or 'vmlinux'} has no type information for it"
        return "the kernel has no kprobes"

    def _attach_one(self, spec: ProbeSpec, attachment: Attachment) -> None:
        program = self._load(attachment)
        try:
            link = _attach_to(attachment, program)
        except BaseException:
            os.close(program)
            raise
        alike = [a for a in spec.attachments if a.kind is attachment.kind]
        number = alike.index(attachment)
        self.probes.append(AttachedProbe(spec.probe, attachment.kind, attachment.target, number))
        self.programs.append(program)
        self._links.append(link)

    def _load(self, attachment: Attachment) -> int:
        function = attachment.function
        code = self._compiled.with_maps(function, self.maps)
        try:
            return bpf.load_program(function, _PROGRAM_TYPES[attachment.kind], code)
        except bpf.ProgramRefused as error:
            if self._debug:
                print(error.log, file=sys.stderr, end="")
            raise

    def close_maps(self) -> None:
        """Their descriptors only: programs and mappings keep the maps."""
        for descriptor in self.maps.values():
            os.close(descriptor)
        self.maps = {}

    def close(self) -> None:
        """Detach everything."""
        self.close_maps()
        for descriptor in [*self._links, *self.programs]:
            os.close(descriptor)
        self._links, self.programs = [], []


_PROGRAM_TYPES = {
    Kind.KPROBE: ProgType.KPROBE,
    Kind.TRACEPOINT: ProgType.RAW_TRACEPOINT,
    Kind.CLASSIC: ProgType.TRACEPOINT,
}


def _attach_to(attachment: Attachment, program: int) -> int:
    if attachment.kind is Kind.KPROBE:
        return bpf.attach_kprobe(attachment.target, program)
    if attachment.kind is Kind.TRACEPOINT:
        return bpf.attach_raw_tracepoint(attachment.target, program)
    category, _, name = attachment.target.partition(":")
    return bpf.attach_tracepoint(category, name, program)


def _reason(attachment: Attachment, error: OSError) -> str:
    if isinstance(error, bpf.ProgramRefused):
        return f"the kernel refuses the program {attachment.function} ({error.strerror})"
    if isinstance(error, FileNotFoundError):
        what = "function" if attachment.kind is Kind.KPROBE else "tracepoint"
        return f"the kernel has no {what} {attachment.target} to attach to"
    return f"cannot attach to the {attachment.kind} {attachment.target} ({error.strerror})"
