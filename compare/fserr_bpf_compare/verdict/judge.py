"""The verdict on a cell, and the exit status of a whole run. Everything here is pure."""

from __future__ import annotations

from collections.abc import Sequence

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.verdict.cells import Cell, Difference, Judged, Level, Outcome, Witness
from fserr_bpf_compare.verdict.levels import differences, reached
from fserr_bpf_compare.verdict.profiles import profile, version_of
from fserr_bpf_compare.verdict.tolerances import Tolerances

EXIT_SAME = 0
EXIT_DIFFERENT = 1
EXIT_BROKEN = 2
EXIT_NOT_RUN = 3


def judge(cell: Cell, tolerances: Tolerances) -> Judged:
    """What became of ``cell``, at the level that its kernel's profile promises.

    Where nothing was compared the level is L0 for a kernel whose release is not known.
    """
    promised = _promised(cell)
    blank = Judged(cell, Outcome.BROKEN, promised or Level.L0, None)
    if cell.not_run or cell.trouble:
        outcome = Outcome.NOT_RUN if cell.not_run else Outcome.BROKEN
        return blank._replace(outcome=outcome, reason=cell.not_run or cell.trouble)
    if cell.witness == Witness.LOG:
        return _beside_log(cell, blank)
    if promised is None:
        reason = f"was run, although {cell.release or 'an unknown kernel'} promises nothing"
        return blank._replace(reason=f"{reason} for the stream {cell.stream}")
    left, tolerated = _tolerate(cell, promised, tolerances)
    found = blank._replace(reached=reached(cell.real, cell.emulated), tolerated=tolerated)
    if left:
        reason = f"differs at {promised.name}"
        return found._replace(
            outcome=Outcome.DIFFERENT,
            differences=left,
            reason="; ".join((reason, *cell.missing)),
        )
    if lacking := _lacking(cell, promised):
        return found._replace(reason=f"the trigger did not cause all expected errors: {lacking}")
    return found._replace(outcome=Outcome.SAME)


def verdict(judged: Sequence[Judged], stale: Sequence[str] = ()) -> int:
    """The exit status of a run; ``stale`` names tolerances that it did not need.

    In this order: 1 if any cell is different; 2 if any is broken or a tolerance is stale;
    3 if no cell was compared, or one was not run because of this machine; 0 otherwise.
    What a kernel itself cannot do leaves the status at 0 as long as something else was
    compared.
    """
    outcomes = {one.outcome for one in judged}
    if Outcome.DIFFERENT in outcomes:
        return EXIT_DIFFERENT
    if Outcome.BROKEN in outcomes or stale:
        return EXIT_BROKEN
    hindered = any(one.outcome is Outcome.NOT_RUN and one.cell.machine for one in judged)
    if Outcome.SAME not in outcomes or hindered:
        return EXIT_NOT_RUN
    return EXIT_SAME


def _beside_log(cell: Cell, blank: Judged) -> Judged:
    """Where no group of the kernel sends the stream: each error in the log is an event of ours."""
    if not cell.unheard:
        return blank._replace(outcome=Outcome.SAME)
    left = tuple(
        Difference(-1, "log", f"{one.lines} x {one.function}: {one.example}", "nothing")
        for one in cell.unheard
    )
    reason = "the kernel's log has errors without an event"
    return blank._replace(outcome=Outcome.DIFFERENT, differences=left, reason=reason)


def _promised(cell: Cell) -> Level | None:
    try:
        version = version_of(cell.release)
        return profile(version, Stream(cell.stream), patched=cell.patched).level
    except ValueError:  # a cell that never saw its kernel has neither
        return None


def _tolerate(
    cell: Cell, promised: Level, tolerances: Tolerances
) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    """The differences that no entry allows, and the entries that allow one."""
    left = []
    used = []
    for difference in differences(cell.real, cell.emulated, promised):
        allowed = [entry.id for entry in tolerances if entry.allows(cell, difference)]
        used += allowed
        if not allowed:
            left.append(difference)
    return tuple(left), tuple(dict.fromkeys(used))


def _lacking(cell: Cell, promised: Level) -> str:
    """Of streams that agree: what must have been in the real one and was not, or "".

    From L2 on, an error that one side alone does not show has merged into another there.
    """
    real, emulated = (
        {words.removeprefix(side) for words in cell.missing if words.startswith(side)}
        for side in ("real: ", "emulated: ")
    )
    lacking = real & emulated if promised >= Level.L2 else real
    return ", ".join(sorted(lacking))
