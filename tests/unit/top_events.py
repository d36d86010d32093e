"""Events for the tests of ``fserr-bpf top``."""

from __future__ import annotations

from fserr_bpf.model.event import FsErrorEvent, Fsid, Origin
from fserr_bpf.uapi.dev import Dev

SECOND = 1_000_000_000
BEGIN_NS = 1_790_000_000 * SECOND


def error(
    minor: int = 0,
    *,
    count: int = 1,
    seconds: float = 0,
    function: str = "ext4_lookup",
    line: int = 1,
    **others: object,
) -> FsErrorEvent:
    """``count`` errors on loop``minor``, ``seconds`` after BEGIN_NS."""
    origin = Origin(
        time_ns=BEGIN_NS + int(seconds * SECOND),
        dev=Dev(7, minor),
        device=f"loop{minor}",
        mount_point=f"/srv/{minor}",
        fstype="ext4",
        ino=0,
        generation=0,
        tid=5,
        comm="cat",
        source="kprobe:__ext4_error",
        function=function,
        line=line,
    )._replace(**others)  # type: ignore[arg-type]
    return FsErrorEvent(Fsid(1, minor), None, 117, count, 5, origin=origin)
