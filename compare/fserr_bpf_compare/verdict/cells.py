"""What one scenario gave on one kernel: the value that guest, report and terminal share.

A machine writes its cells as lines of JSON; the host reads them back, judges them
(`fserr_bpf_compare.verdict.judge`) and reports. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from fserr_bpf_compare.verdict.unheard import Unheard


class Level(IntEnum):
    """How far two streams agree; a smaller number is more."""

    L0 = 0  # the same bytes, read by read
    L1 = 1  # the same after info records are reordered and unknown ones skipped
    L2 = 2  # the same errors, whatever merged: see fserr_bpf_compare.verdict.levels
    L3 = 3  # the same set of (fsid, error)
    DIFFERENT = 4


class Outcome(StrEnum):
    """What became of a cell; the four are never confused."""

    SAME = "same"  # at the promised level or better
    DIFFERENT = "different"
    BROKEN = "broken"  # the harness failed, or the trigger did not cause what it should
    NOT_RUN = "not run"


class Witness(StrEnum):
    """What our stream is held against."""

    GROUP = "group"  # the kernel's own, with the same marks
    LOG = "log"  # the kernel's log, where no group of the kernel sends this stream


class Read(NamedTuple):
    """One read(2): the size that was asked for, and bytes or the errno instead (then b"")."""

    size: int
    data: bytes
    errno: int = 0


class Cell(NamedTuple):
    """One scenario on one kernel, before it is judged.

    ``kernel`` is the name in the lab, the path of a bzImage or "here"; ``release`` is
    uname's. ``real`` and ``emulated`` are the reads of either side in order.
    ``trigger`` has the commands that caused the errors, with their exit status;
    ``log`` the kernel's messages meanwhile. ``missing`` are expected errors, in words, that the
    real group (where the kernel reports them) or the emulated one did not have.
    ``basis`` is "probes", or "kernel group" where the emulated ext4 events are the
    kernel's own and only queue and codec are compared. ``trouble`` is a reason for
    BROKEN, ``not_run`` one for NOT_RUN; at most one of them is set. ``machine`` says that
    the reason lies in this machine (a missing tool) and not in the kernel; ``patched`` that
    the kernel has the series of ``kernel-patch/``.

    Of a play of an image ``scenario`` is its name, ``image`` its file and ``fstype`` the driver
    that mounted it; both are "" otherwise. Then ``heard`` has the errors of the stream
    ``proposed`` by the kernel function that met them, "" where that is not known, ``unheard``
    the errors in the log that it has not, and ``mounting`` counts those from before there was
    anything to mark. ``lost``: the kernel was given up after it.
    """

    kernel: str
    release: str
    scenario: str
    stream: str
    basis: str = "probes"
    real: tuple[Read, ...] = ()
    emulated: tuple[Read, ...] = ()
    trigger: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    statistics: str = ""
    seconds: float = 0.0
    trouble: str = ""
    not_run: str = ""
    machine: bool = False
    patched: bool = False
    image: str = ""
    fstype: str = ""
    witness: str = Witness.GROUP
    heard: tuple[tuple[str, int], ...] = ()
    unheard: tuple[Unheard, ...] = ()
    mounting: int = 0
    lost: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON values; bytes are hexadecimal."""
        fields = self._asdict()
        for side in ("real", "emulated"):
            fields[side] = [
                {"size": r.size, "data": r.data.hex(), "errno": r.errno} for r in fields[side]
            ]
        fields["heard"] = dict(self.heard)
        fields["unheard"] = [one._asdict() for one in self.unheard]
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Cell:
        """The inverse of `to_json`; KeyError, TypeError or ValueError for anything else."""
        known = dict(fields)
        for side in ("real", "emulated"):
            known[side] = tuple(
                Read(int(r["size"]), bytes.fromhex(r["data"]), int(r["errno"])) for r in known[side]
            )
        for name in ("trigger", "log", "missing"):
            known[name] = tuple(known[name])
        known["heard"] = tuple(dict(known.get("heard", {})).items())
        known["unheard"] = tuple(Unheard(**one) for one in known.get("unheard", ()))
        return cls(**known)


class Difference(NamedTuple):
    """One thing that differs: the event (from 0) and field, in words, and both values.

    ``event`` is -1 for what concerns the streams as a whole (how reads were cut).
    """

    event: int
    field: str
    real: str
    emulated: str


class Judged(NamedTuple):
    """A cell with its verdict.

    ``reached`` is None where nothing was compared. ``tolerated`` names the entries of
    ``tolerances.toml`` (their ``id``) that were needed; ``differences`` are what is left
    between the streams at the promised level, empty when SAME. ``promised`` is L0 where the
    release is not known.
    """

    cell: Cell
    outcome: Outcome
    promised: Level
    reached: Level | None
    differences: tuple[Difference, ...] = ()
    tolerated: tuple[str, ...] = ()
    reason: str = ""
