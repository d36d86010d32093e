"""The table and the reasons, from cells made by hand."""

from __future__ import annotations

from fserr_bpf_compare.report import terminal
from fserr_bpf_compare.verdict.cells import Cell, Difference, Judged, Level, Outcome, Read

EVENT = Read(0, b"x" * 56)


def judged(scenario: str, kernel: str, outcome: Outcome, **fields: object) -> Judged:
    cell = Cell(kernel, f"{kernel}.1-amd64", scenario, "native", real=(EVENT,), emulated=(EVENT,))
    reached = Level.L0 if outcome is Outcome.SAME else None
    return Judged(cell, outcome, Level.L0, reached)._replace(**fields)  # type: ignore[arg-type]


def test_table() -> None:
    same = judged("one", "6.1", Outcome.SAME)
    quiet = same._replace(cell=same.cell._replace(real=(Read(0, b""),), emulated=(Read(0, b""),)))
    worse = Difference(0, "pid", "7", "8")
    cells = [
        same,
        judged("two", "6.1", Outcome.DIFFERENT, differences=(worse,), reached=Level.L2),
        judged("one", "5.10", Outcome.NOT_RUN, reason="no FAN_FS_ERROR"),
        judged("two", "5.10", Outcome.NOT_RUN, reason="no FAN_FS_ERROR"),
        quiet._replace(cell=quiet.cell._replace(kernel="7")),
        judged("two", "7", Outcome.SAME, tolerated=("known",), promised=Level.L2),
    ]
    assert terminal.table(cells, ["stale tolerance: other"]) == [
        "scenario  6.1        5.10     7",
        "one       L0         not run  L0 ∅",
        "two       DIFFERENT  not run  L2*",
        "",
        "∅: no event on either side, and none is due; the kernel log shows the fault",
        "",
        "DIFFERENT: event 0 pid: 7 / 8: two on 6.1",
        "not run: no FAN_FS_ERROR: all on 5.10",
        "*: tolerated by known: two on 7",
        "stale tolerance: other",
        "6 cells: 3 same, 1 different, 0 broken, 2 not run",
    ]


def test_equal_reasons_share_a_line() -> None:
    cells = [
        judged(scenario, kernel, Outcome.NOT_RUN, reason="no device-mapper")
        for kernel in ("6.1", "here")
        for scenario in ("one", "two")
    ]
    cells += [judged("three", "6.1", Outcome.BROKEN, reason="died")]
    cells += [judged("three", "here", Outcome.SAME)]
    assert terminal.table(cells, [])[-3:] == [
        "not run: no device-mapper: one, two on 6.1, here",
        "BROKEN: died: three on 6.1",
        "6 cells: 1 same, 0 different, 1 broken, 4 not run",
    ]
