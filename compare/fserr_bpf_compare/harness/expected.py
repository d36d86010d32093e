"""Which of the errors that a scenario must cause are in what was read. Everything here is pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf_compare.faults.fault import Expected
from fserr_bpf_compare.verdict.cells import Read


def missing(
    real: Sequence[Read], emulated: Sequence[Read], expected: frozenset[Expected]
) -> tuple[str, ...]:
    """The expected errors that a side lacks, in words; if none is expected, what a side has."""
    words = []
    for name, reads in (("real", real), ("emulated", emulated)):
        seen = _errors(reads)
        words += [f"{name}: no error {e.error} in {e.form} form" for e in _sorted(expected - seen)]
        if not expected:
            words += [f"{name}: error {e.error} in {e.form} form" for e in _sorted(seen)]
    return tuple(words)


def _sorted(errors: Iterable[Expected]) -> list[Expected]:
    """By number and form."""
    return sorted(errors, key=lambda e: (e.error, e.form))


def _errors(reads: Sequence[Read]) -> frozenset[Expected]:
    """The errors in a transcript as positive numbers."""
    events = Decoder().feed(b"".join(read.data for read in reads))
    return frozenset(
        Expected(abs(event.error), "inode" if event.handle else "sb")
        for event in events
        if isinstance(event, FsErrorEvent)
    )
