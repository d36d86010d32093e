"""Whether probes attach, and what the streams cannot see with those that do."""

from __future__ import annotations

from collections.abc import Iterator

from fserr_bpf.doctor.finding import Finding, Level
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes

_NO_KPROBES = "use a kernel with CONFIG_KPROBES"


def look_at_probes(attached: AttachedProbes, *, kernel_group: bool) -> Iterator[Finding]:
    """``kernel_group``: the kernel's own events stand in for ext4's probes."""
    how = "kprobes" if attached.kernel.kprobes else "no kprobes"
    yield Finding(Level.OK, "probes", f"{len(attached.probes)} attached, {how}")
    remedy = "" if attached.kernel.kprobes else _NO_KPROBES
    for stream in Stream:
        missing = attached.blind(stream, kernel_group=kernel_group)
        if not missing:
            yield Finding(Level.OK, f"stream {stream}", "sees everything")
        for why, what in missing.items():
            words = f"cannot see {', '.join(what)}: {why}"
            yield Finding(Level.NOTE, f"stream {stream}", words, remedy)
    if not attached.kernel.fserror:
        words = "cannot see failed reads of data: kernels report them from 7.0 on"
        yield Finding(Level.NOTE, "every stream", words)
    words = "cannot see an indexed ext4 directory that cannot be read: a kernel warning only"
    yield Finding(Level.NOTE, "every stream", words)
