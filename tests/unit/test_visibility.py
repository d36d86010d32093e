"""What a mark hears, as pure rules; layers of an overlay; the line of what waits."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from fserr_bpf.cli.marks import mark
from fserr_bpf.codec.handles import HandleInode
from fserr_bpf.errors import MarkError, UsageError
from fserr_bpf.marks import MarkedFilesystem
from fserr_bpf.model.event import Fsid
from fserr_bpf.model.mark import Mark, MarkKind, SuperblockErrors
from fserr_bpf.uapi.side import AliasFlag, Ancestor, PlaceFlag, PlaceRecord
from fserr_bpf.visibility.holding import Held, Holding
from fserr_bpf.visibility.layers import Layers, layers_in, objects_in
from fserr_bpf.visibility.rules import Answer, Chain, Part, Place, Verdict, place_of, within

ROOT, TOP, LOW, OTHER = (Ancestor(n, 0, 0) for n in (2, 10, 11, 20))
FILE = Ancestor(99, 7, 0)
PART = Part(MarkKind.SUBTREE, "/top", TOP, 100)
THERE, WHOLE, DELETED = AliasFlag.THERE, AliasFlag.WHOLE, AliasFlag.DELETED
INSIDE, OUTSIDE = (LOW, TOP, ROOT), (OTHER, ROOT)


def record(
    *names: tuple[int, tuple[Ancestor, ...]],
    nlink: int = 1,
    mode: int = stat.S_IFREG,
    flags: int = PlaceFlag.INODE,
) -> PlaceRecord:
    """A place with these names, each with its flags besides THERE."""
    padded = [(int(THERE | f), chain) for f, chain in names] + [(0, ())] * (3 - len(names))
    return PlaceRecord(
        flags=int(flags),
        nlink=nlink,
        mode=mode,
        alias_flags=tuple(f for f, _ in padded),
        task_cgroups=(1,),
        inode_cgroups=(),
        ancestors=tuple(chain for _, chain in padded),
    )


YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        (record((WHOLE, INSIDE)), YES),
        (record((0, INSIDE[:2])), YES),
        (record((WHOLE, OUTSIDE)), NO),
        (record((0, OUTSIDE[:1])), UNKNOWN),
        (record((0, ())), UNKNOWN),
        (record(), UNKNOWN),
        (record((WHOLE, OUTSIDE), flags=0), UNKNOWN),
        (None, UNKNOWN),
        # hard links
        (record((WHOLE, OUTSIDE), (WHOLE, INSIDE), nlink=2), YES),
        (record((WHOLE, OUTSIDE), (WHOLE, OUTSIDE), nlink=2), NO),
        (record((WHOLE, OUTSIDE), nlink=2), UNKNOWN),
        (record((WHOLE, INSIDE), nlink=2), YES),
        (record((WHOLE, OUTSIDE), (WHOLE, OUTSIDE), (WHOLE, OUTSIDE), nlink=3), NO),
        (record((WHOLE, OUTSIDE), (WHOLE, OUTSIDE), (WHOLE, OUTSIDE), nlink=4), UNKNOWN),
        # those of a directory are of its children
        (record((WHOLE, OUTSIDE), nlink=9, mode=stat.S_IFDIR), NO),
        # removed
        (record((WHOLE | DELETED, INSIDE), nlink=0), YES),
        (record((WHOLE | DELETED, OUTSIDE), nlink=0), NO),
        (record((WHOLE | DELETED, OUTSIDE), nlink=0, flags=3), UNKNOWN),
        (record((WHOLE | DELETED, OUTSIDE), (WHOLE | DELETED, INSIDE), nlink=0), YES),
        (record((WHOLE | DELETED, INSIDE), (WHOLE, OUTSIDE)), NO),
        (record((WHOLE | DELETED, INSIDE)), UNKNOWN),
    ],
)
def test_where_an_inode_is(seen: PlaceRecord | None, answer: Answer) -> None:
    assert within(PART, FILE, place_of(seen)) is answer


def test_the_marked_object_and_the_root_of_all_need_no_place() -> None:
    assert within(PART, TOP, None) is Answer.YES
    whole = Part(MarkKind.MOUNT, "/", ROOT, 0, everything=True)
    assert within(whole, FILE, None) is Answer.YES


def test_a_number_without_its_generation_or_subvolume_is_another() -> None:
    place = Place((Chain((TOP._replace(generation=1), ROOT), True),), True)
    assert within(PART, FILE, place) is Answer.NO
    part = Part(MarkKind.SUBTREE, "/top", TOP._replace(subvolume=256), 0)
    for subvolume, answer in ((256, YES), (257, NO), (0, UNKNOWN)):
        chain = tuple(above._replace(subvolume=subvolume) for above in (TOP, ROOT))
        assert within(part, FILE, Place((Chain(chain, True),), True)) is answer


def marked(**changes: object) -> MarkedFilesystem:
    fields: dict[str, object] = {
        "path": "/",
        "dev": 1,
        "fsid": Fsid(1, 2),
        "form": 1,
        "fstype": "ext4",
        "device": "sda",
        "mount_point": "/",
        "since_ns": 50,
        "whole_ns": None,
    }
    return MarkedFilesystem(**(fields | changes))  # type: ignore[arg-type]


HERE, THERE_ = (Place((Chain(c, True),), True) for c in (INSIDE, OUTSIDE))
VICTIM = HandleInode(99, 7)
IGNORE_INODE = Part(MarkKind.INODE, "/f", FILE, 0)
IGNORE_ALL = Part(MarkKind.FILESYSTEM, "/", ROOT, 0, everything=True)
ALL = SuperblockErrors.ALL
CASES = [
    (marked(whole_ns=50), None, Verdict.DELIVER),
    (marked(whole_ns=200), HERE, Verdict.NOT_MARKED),
    (marked(parts=(PART,)), HERE, Verdict.DELIVER),
    (marked(parts=(PART,)), THERE_, Verdict.NOT_MARKED),
    (marked(parts=(PART,)), None, Verdict.UNDECIDED),
    (marked(parts=(PART,), inodes={VICTIM: 50}), None, Verdict.DELIVER),
    (marked(whole_ns=50, ignored=(PART,)), HERE, Verdict.IGNORED),
    (marked(whole_ns=50, ignored=(PART,)), THERE_, Verdict.DELIVER),
    (marked(whole_ns=50, ignored=(PART,)), None, Verdict.UNDECIDED),
    (marked(parts=(PART,), ignored=(IGNORE_INODE,)), HERE, Verdict.IGNORED),
    (marked(parts=(PART,), ignored=(IGNORE_INODE,)), THERE_, Verdict.NOT_MARKED),
    (marked(whole_ns=50, ignored=(IGNORE_ALL,)), None, Verdict.IGNORED),
]


@pytest.mark.parametrize(("marks", "place", "verdict"), CASES)
def test_marks_and_ignore_marks(
    marks: MarkedFilesystem, place: Place | None, verdict: Verdict
) -> None:
    assert marks.verdict(150, VICTIM, place) is verdict


def test_in_the_end_an_ignore_mark_ignores_what_is_surely_its_own() -> None:
    assert marked(parts=(PART,)).verdict(150, VICTIM, None, final=True) is Verdict.UNDECIDED
    ignoring = marked(whole_ns=50, ignored=(PART,))
    assert ignoring.verdict(150, VICTIM, None, final=True) is Verdict.DELIVER


@pytest.mark.parametrize(
    ("marks", "verdict"),
    [
        (marked(whole_ns=50), Verdict.DELIVER),
        (marked(parts=(PART,)), Verdict.NOT_MARKED),
        (marked(inodes={VICTIM: 50}), Verdict.NOT_MARKED),
        (marked(parts=(PART,), superblock=ALL), Verdict.DELIVER),
        (marked(inodes={VICTIM: 50}, superblock=ALL), Verdict.DELIVER),
        (marked(whole_ns=50, ignored=(PART,), superblock=ALL), Verdict.DELIVER),
        (marked(whole_ns=50, ignored=(IGNORE_ALL,)), Verdict.IGNORED),
    ],
)
def test_errors_of_the_superblock(marks: MarkedFilesystem, verdict: Verdict) -> None:
    assert marks.verdict(150, None, None) is verdict


def test_nothing_overtakes_what_waits() -> None:
    holding, gone = Holding(), list[tuple[str, Place | None]]()

    def held(name: str, ticket: int = 0) -> Held:
        return Held(lambda place: gone.append((name, place)), 2, ticket)

    holding.add(held("first"))
    for name, ticket in (("asked", 1), ("behind", 0), ("again", 2), ("last", 0)):
        holding.add(held(name, ticket))
    assert ([name for name, _ in gone], holding.errors) == (["first"], 8)
    answers: Mapping[int, Place | None] = {2: HERE}
    holding.settle(answers)
    assert len(gone) == 1
    holding.settle({1: None})
    assert gone[1:] == [("asked", None), ("behind", None), ("again", HERE), ("last", None)]
    assert (len(holding), holding.errors) == (0, 0)


def test_a_flood_does_not_wait_for_ever() -> None:
    holding, gone = Holding(), list[Place | None]()
    for ticket in range(1, 20001):
        holding.add(Held(gone.append, 1, ticket))
    assert len(holding) + len(gone) == 20000
    assert len(holding) == 16384


# overlays


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ("rw,lowerdir=/l,upperdir=/u,workdir=/w", Layers("/u", ("/l",))),
        ("ro,lowerdir=/a:/b", Layers("", ("/a", "/b"))),
        (r"rw,lowerdir=/a\:b:/c\,d,upperdir=/u\,v,workdir=/w", Layers("/u,v", ("/a:b", "/c,d"))),
        ("rw,lowerdir=/a::/data,upperdir=/u", Layers("/u", ("/a",))),
        ("rw,lowerdir+=/a,lowerdir+=/b,datadir+=/c,upperdir=/u", Layers("/u", ("/a", "/b"))),
    ],
)
def test_layers_are_in_the_options(options: str, layers: Layers) -> None:
    assert layers_in(options) == layers


def test_a_layer_hides_those_below_where_the_overlay_does(tmp_path: Path) -> None:
    upper, middle, lower = (tmp_path / name for name in ("upper", "middle", "lower"))
    for layer in (upper, middle, lower):
        (layer / "a" / "b").mkdir(parents=True)
    (middle / "a" / "file").touch()
    (lower / "a" / "file").touch()
    (lower / "only").mkdir()
    layers = Layers(str(upper), (str(middle), str(lower)))
    all_of_them = [f"{layer}/a/b" for layer in (upper, middle, lower)]
    assert objects_in(layers, "a/b", "/m/a/b") == all_of_them
    assert objects_in(layers, "", "/m") == [str(upper), str(middle), str(lower)]
    assert objects_in(layers, "a/file", "/m/a/file") == [f"{middle}/a/file"]
    assert objects_in(layers, "only", "/m/only") == [f"{lower}/only"]
    with pytest.raises(MarkError, match=r"^/m/none: not found in the overlay's layers"):
        objects_in(layers, "none", "/m/none")
    with pytest.raises(MarkError, match=r"^/m: the overlay's layer l has no absolute path; "):
        objects_in(Layers("", ("l",)), "", "/m")


# options


def test_marks_on_the_command_line() -> None:
    assert mark("subtree:/a:b") == Mark.subtree("/a:b")
    assert mark("filesystem:/") == Mark.filesystem("/")
    assert [Mark.mount("/").whole, Mark.inode("/").whole] == [False, False]
    for text in ("/a", "tree:/a", "inode:", "", ":/a"):
        with pytest.raises(UsageError, match=f"^no mark: {text}; give filesystem|mount|inode"):
            mark(text)
