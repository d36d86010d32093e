"""Whether an object is in a part of a file system: from numbers alone, pure.

``docs/marks.md`` has the same rules in prose, with the reasons.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from fserr_bpf.model.mark import MarkKind
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.entry import AliasFlag, PlaceFlag, PlaceRecord
from fserr_bpf.uapi.inode import InodeId

_THERE, _WHOLE, _DELETED = map(int, (AliasFlag.THERE, AliasFlag.WHOLE, AliasFlag.DELETED))


class Answer(Enum):
    """Of three values: what is unknown is not guessed."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()


class Verdict(Enum):
    """What becomes of a report at the marks of a group."""

    DELIVER = auto()
    NOT_MARKED = auto()
    IGNORED = auto()
    UNDECIDED = auto()


class Chain(NamedTuple):
    """The folders above one name, innermost first; ``whole``: up to the file system's root."""

    ancestors: tuple[InodeId, ...]
    whole: bool


class Place(NamedTuple):
    """Where an inode is. ``complete``: it has no other name that counts."""

    chains: tuple[Chain, ...]
    complete: bool


class MountId(NamedTuple):
    """A mount: its id, its device, and the process whose table has it, 0 for our own."""

    number: int
    dev: Dev
    process: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A mark on a part of a file system. ``root`` is the topmost object of it.

    ``everything``: that is the root of the file system. ``mount``: the mark ends with it.
    ``since_ns`` is CLOCK_MONOTONIC.
    """

    kind: MarkKind
    path: str
    root: InodeId
    since_ns: int
    everything: bool = False
    mount: MountId | None = None


def place_of(record: PlaceRecord | None) -> Place | None:
    """What the probe saw; None where it had no inode or no name of it.

    Names that were removed count only for a file that has no other: it is where it was.
    """
    if record is None or not record.flags & PlaceFlag.INODE:
        return None
    names = [
        (flags, Chain(chain, bool(flags & _WHOLE)))
        for flags, chain in zip(record.alias_flags, record.ancestors, strict=True)
        if flags & _THERE
    ]
    if record.nlink == 0:
        chains = tuple(chain for _, chain in names)
        complete = not record.flags & PlaceFlag.MORE
    else:
        chains = tuple(chain for flags, chain in names if not flags & _DELETED)
        # the links of a directory are those of its children
        complete = len(chains) >= (1 if stat.S_ISDIR(record.mode) else record.nlink)
    return Place(chains, complete) if chains else None


def within(part: Part, inode: InodeId, place: Place | None) -> Answer:
    """Whether ``inode`` is the root of ``part`` or below it."""
    if part.everything or inode == part.root:
        return Answer.YES
    if place is None or (part.root.subvolume and _lacks_subvolume(place)):
        return Answer.UNKNOWN
    if any(part.root in chain.ancestors for chain in place.chains):
        return Answer.YES
    if place.complete and all(chain.whole for chain in place.chains):
        return Answer.NO
    return Answer.UNKNOWN


def _lacks_subvolume(place: Place) -> bool:
    """Of a btrfs whose module has no BTF: then equal numbers may be of two inodes."""
    return any(not above.subvolume for chain in place.chains for above in chain.ancestors)


def hears(part: Part, time_ns: int, inode: InodeId | None, place: Place | None) -> Answer:
    """Whether an error of ``inode``, None for the superblock, belongs to ``part``.

    A part of the kind FILESYSTEM is all of it.
    """
    if time_ns < part.since_ns:
        return Answer.NO
    if part.kind is MarkKind.FILESYSTEM:
        return Answer.YES
    if inode is None:
        return Answer.NO
    if part.kind is MarkKind.INODE:
        return Answer.YES if inode == part.root else Answer.NO
    return within(part, inode, place)


def any_hears(
    parts: Iterable[Part], time_ns: int, inode: InodeId | None, place: Place | None
) -> Answer:
    """YES if one of ``parts`` surely hears it, else UNKNOWN if one may."""
    answers = {hears(part, time_ns, inode, place) for part in parts}
    return next((a for a in (Answer.YES, Answer.UNKNOWN) if a in answers), Answer.NO)


def verdict(heard: Answer, ignored: Answer, *, final: bool) -> Verdict:
    """What the marks and the ignore marks say together.

    ``final``: nobody can be asked any more. Then an ignore mark ignores only what surely
    is its own, and UNDECIDED is what may be for no mark at all.
    """
    if heard is Answer.NO:
        return Verdict.NOT_MARKED
    if ignored is Answer.YES:
        return Verdict.IGNORED
    if heard is Answer.YES and (final or ignored is Answer.NO):
        return Verdict.DELIVER
    return Verdict.UNDECIDED
