"""Judged cells for the tests of the report, made of the bytes that kernels wrote."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fserr_bpf_compare.report import Run
from fserr_bpf_compare.verdict import levels
from fserr_bpf_compare.verdict.cells import Cell, Judged, Level, Outcome, Read
from tests.unit.test_fanotify_codec import CAPTURED, INODE_ERROR, SB_ERROR

RUN = Run(
    command=("fserr-bpf", "compare", "--kernel", "6.12", "--scenario", "xfs_*"),
    host_release="6.18.44",
    started=datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC),
    seconds=754.25,
    version="0.1.0",
)
OVERFLOW = CAPTURED["overflow"][0]
OTHER_PID = SB_ERROR[:20] + b"\x14\x0f\0\0" + SB_ERROR[24:]
LOG = (
    "EXT4-fs (loop0): mounted filesystem a0495e16 r/w with ordered data mode. Quota mode: none.",
    "EXT4-fs error (device loop0): trigger_test_error:129: comm sh: x",
)


def cell(
    real: Sequence[bytes] = (SB_ERROR,),
    emulated: Sequence[bytes] = (SB_ERROR,),
    *,
    kernel: str = "6.12",
    scenario: str = "ext4_trigger",
) -> Cell:
    """A cell whose sides gave these reads."""
    return Cell(
        kernel=kernel,
        release=f"{kernel}.117+deb13-amd64",
        scenario=scenario,
        stream="native",
        real=tuple(Read(65536, data) for data in real),
        emulated=tuple(Read(65536, data) for data in emulated),
        trigger=("sh -c echo x > /sys/fs/ext4/loop0/trigger_fs_error -> 0",),
        log=LOG,
        statistics="1 errors seen = 1 delivered + 0 merged + 0 dropped; 0 missed by probes",
        seconds=1.25,
    )


def judged(cell: Cell, promised: Level = Level.L0) -> Judged:
    """The verdict, as the levels have it."""
    if cell.not_run:
        return Judged(cell, Outcome.NOT_RUN, promised, None, reason=cell.not_run)
    if cell.trouble:
        return Judged(cell, Outcome.BROKEN, promised, None, reason=cell.trouble)
    reached = levels.reached(cell.real, cell.emulated)
    left = tuple(levels.differences(cell.real, cell.emulated, promised))
    outcome = Outcome.DIFFERENT if left else Outcome.SAME
    return Judged(cell, outcome, promised, reached, left)


def one_of_each() -> list[Judged]:
    """The four outcomes in the order of `Outcome`, on two kernels."""
    trouble = "nothing failed: the kernel logged no message that matches EXT4-fs error"
    not_run = "this kernel has no FAN_FS_ERROR: it refuses the mark"
    return [
        judged(cell([INODE_ERROR])._replace(emulated=(Read(65536, INODE_ERROR),))),
        judged(cell([SB_ERROR + INODE_ERROR], [OTHER_PID], scenario="ext4_htree")),
        judged(Cell("6.12", "6.12.117", "xfs_inode", "native", trouble=trouble)),
        judged(Cell("5.10", "5.10.0-46-amd64", "ext4_trigger", "native", not_run=not_run)),
    ]


def whole_matrix() -> list[Judged]:
    """7 kernels by 60 scenarios, with ten lines of log and three events in each cell."""
    streams = [data for data, _ in CAPTURED.values()]
    found = []
    for kernel in ("here", "5.10", "6.1", "6.12", "6.18", "7.2", "7"):
        for number in range(60):
            events = [streams[(number + shift) % len(streams)] for shift in range(3)]
            area = ("ext4", "xfs", "generic", "fanotify")[number // 15]
            one = cell(events, events, kernel=kernel, scenario=f"{area}_scenario_{number}")
            found.append(judged(one._replace(log=LOG * 5)))
    return found
