"""docs/coverage.md: file system by kind of error by kernel, made of the tables of the probes.

``python -m fserr_bpf_compare.report.coveragepage`` prints it.
"""

from __future__ import annotations

from typing import NamedTuple

from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.coverage import SEEN, UNSEEN, Seen
from fserr_bpf.probes.table import EXT4_EMITTERS, PROBES, Attachment, Kernel, Kind, wanted
from fserr_bpf.uapi.record import Probe


class Column(NamedTuple):
    """Kernels on which the same is seen.

    ``typed``: modules have type information. ``lacking`` are functions that they do not have.
    """

    name: str
    kernel: Kernel
    typed: bool
    lacking: frozenset[str] = frozenset()


_OLD = frozenset({"f2fs_handle_error", "xlog_force_shutdown"})
COLUMNS = (
    Column(
        "5.10",
        Kernel(kprobes=True, fserror=False, abort=True, sick=False, gate=False),
        typed=False,
        lacking=_OLD,
    ),
    Column("6.1", Kernel(kprobes=True, fserror=False, abort=False, sick=False, gate=True), True),
    Column(
        "6.12, 6.18",
        Kernel(kprobes=True, fserror=False, abort=False, sick=True, gate=True),
        True,
    ),
    Column("7.2, 7.3", Kernel(kprobes=True, fserror=True, abort=False, sick=True, gate=True), True),
    Column(
        "6.18 without kprobes",
        Kernel(kprobes=False, fserror=False, abort=False, sick=True, gate=True),
        True,
    ),
)

_HEAD = """\
# What is seen

<!-- Made by fserr_bpf_compare.report.coveragepage: do not edit. -->

Of each file system the kinds of errors that the stream `proposed` has, and the probe that sees
them. The kernels are Debian's, as the lab has them; a dash means that it is not seen there: 5.10's
modules have no type information, and a kernel without kprobes has tracepoints only, and ext4's own
events. `fserr-bpf probes` says what holds for the kernel that runs.

"""
_MIDDLE = """
## Not seen

What the kernel's log can have without an event, on any kernel. A test causes every fault that there
is, and fails where the kernel logs an error of a watched file system that is neither an event nor
listed here.

| file system | what | in the kernel's log | why |
| --- | --- | --- | --- |
"""


def render() -> str:
    """The whole page."""
    names = " | ".join(column.name for column in COLUMNS)
    ruler = " | ".join("---" for _ in COLUMNS)
    lines = [f"| file system | what | {names} |\n", f"| --- | --- | {ruler} |\n"]
    for seen in SEEN:
        cells = " | ".join(_cell(seen, column) for column in COLUMNS)
        lines.append(f"| {seen.fstype or 'any'} | {seen.what} | {cells} |\n")
    unseen = [
        f"| {one.fstype or 'any'} | {one.what} | {_code(one.log)} | {one.why} |\n" for one in UNSEEN
    ]
    return "".join([_HEAD, *lines, _MIDDLE, *unseen])


def sees(probe: Probe, column: Column) -> bool:
    """Whether ``probe`` is part of the stream on these kernels, and can be attached."""
    if probe not in wanted(Stream.PROPOSED, column.kernel):
        return False
    spec = next(spec for spec in PROBES if spec.probe is probe)
    if probe in EXT4_EMITTERS and not column.kernel.kprobes:
        return True  # from the kernel's own group
    return any(_attaches(one, column, typed=not spec.needs) for one in spec.attachments)


def _attaches(attachment: Attachment, column: Column, *, typed: bool) -> bool:
    if attachment.kind is Kind.CLASSIC:
        return not column.typed
    if not (column.typed or typed) or attachment.target in column.lacking:
        return False
    return attachment.kind is not Kind.KPROBE or column.kernel.kprobes


def _cell(seen: Seen, column: Column) -> str:
    found = [f"`{probe.name.lower()}`" for probe in seen.probes if sees(probe, column)]
    return ", ".join(found) or "-"


def _code(pattern: str) -> str:
    escaped = pattern.replace("|", "\\|")
    return f"`{escaped}`" if pattern else "nothing"


if __name__ == "__main__":
    print(render(), end="")
