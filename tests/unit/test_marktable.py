"""Which errors are for the marks of a group, and when marks end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fserr_bpf.errors import MarkError
from fserr_bpf.kernel.handles import FilesystemIdentity
from fserr_bpf.kernel.mounts import Mount, MountTable
from fserr_bpf.marks import table as marktable
from fserr_bpf.marks.resolve import Resolved
from fserr_bpf.marks.rules import Chain, MountId, Part, Place, Verdict
from fserr_bpf.marks.table import MarkedFilesystem, MarkTable, gone
from fserr_bpf.model.event import Fsid
from fserr_bpf.model.mark import Mark, MarkKind, SuperblockErrors
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.inode import InodeId
from tests.ring_values import DEV, marked

ROOT, TOP, LOW, OTHER = (InodeId(n, 0, 0) for n in (2, 10, 11, 20))
FILE = InodeId(99, 7, 0)
PART = Part(MarkKind.SUBTREE, "/top", TOP, 100)
NEXT, THIRD, FOURTH = (Dev(254, minor) for minor in (4, 5, 6))
HERE, AWAY = (Place((Chain(chain, True),), True) for chain in ((LOW, TOP, ROOT), (OTHER, ROOT)))
VICTIM = InodeId(99, 7)
IGNORE_INODE = Part(MarkKind.INODE, "/f", FILE, 0)
IGNORE_ALL = Part(MarkKind.FILESYSTEM, "/", ROOT, 0, everything=True)
ALL = SuperblockErrors.ALL
CASES = [
    (marked(whole_ns=50), None, Verdict.DELIVER),
    (marked(whole_ns=200), HERE, Verdict.NOT_MARKED),
    (marked(parts=(PART,)), HERE, Verdict.DELIVER),
    (marked(parts=(PART,)), AWAY, Verdict.NOT_MARKED),
    (marked(parts=(PART,)), None, Verdict.UNDECIDED),
    (marked(parts=(PART,), inodes={VICTIM: 50}), None, Verdict.DELIVER),
    (marked(whole_ns=50, ignored=(PART,)), HERE, Verdict.IGNORED),
    (marked(whole_ns=50, ignored=(PART,)), AWAY, Verdict.DELIVER),
    (marked(whole_ns=50, ignored=(PART,)), None, Verdict.UNDECIDED),
    (marked(parts=(PART,), ignored=(IGNORE_INODE,)), HERE, Verdict.IGNORED),
    (marked(parts=(PART,), ignored=(IGNORE_INODE,)), AWAY, Verdict.NOT_MARKED),
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


@pytest.mark.parametrize(
    ("marks", "inode", "heard"),
    [
        (marked(), VICTIM, (False, False)),
        (marked(whole_ns=100), VICTIM, (False, True)),
        (marked(whole_ns=100), None, (False, True)),
        (marked(inodes={VICTIM: 100}), VICTIM, (False, True)),
        (marked(inodes={VICTIM: 100}), VICTIM._replace(generation=8), (False, False)),
        (marked(inodes={VICTIM: 100}), None, (False, False)),
        (marked(inodes={VICTIM: 50}, whole_ns=100), VICTIM, (True, True)),
        (marked(superblock=ALL), None, (True, True)),
        (marked(superblock=ALL), VICTIM, (False, False)),
    ],
)
def test_a_mark_hears_from_its_first_nanosecond_on(
    marks: MarkedFilesystem, inode: InodeId | None, heard: tuple[bool, bool]
) -> None:
    assert (marks.hears(99, inode), marks.hears(100, inode)) == heard


def test_ignore_marks_too_begin_with_their_making() -> None:
    marks = marked(whole_ns=50, ignored=(PART,))
    assert marks.verdict(99, VICTIM, HERE) is Verdict.DELIVER
    assert marks.verdict(100, VICTIM, HERE) is Verdict.IGNORED


def test_what_is_marked_and_ignored() -> None:
    mount = Part(MarkKind.MOUNT, "/top", TOP, 300, mount=MountId(7, DEV))
    there = Part(MarkKind.MOUNT, "/p", TOP, 200, mount=MountId(8, DEV, 66))
    plain = marked(whole_ns=150, inodes={VICTIM: 250})
    assert (plain.partial, plain.elsewhere, plain.newest_ns) == (False, False, 250)
    assert marked().newest_ns == 50
    assert marked(whole_ns=60).newest_ns == 60
    for marks, elsewhere, newest in (
        (marked(parts=(PART, mount)), False, 300),
        (marked(ignored=(PART, mount)), False, 300),
        (marked(parts=(there,)), True, 200),
        (marked(ignored=(PART, there)), True, 200),
    ):
        assert (marks.partial, marks.elsewhere, marks.newest_ns) == (True, elsewhere, newest)


# the table


def table_of(*marks: MarkedFilesystem) -> MarkTable:
    table = MarkTable(())
    table.set(marks)
    return table


def test_an_empty_table() -> None:
    table = MarkTable(())
    assert (len(table), list(table), table.newest_ns, table.devices()) == (0, [], 0, frozenset())
    assert (table.get(DEV), table.by_fsid(Fsid(1, 2))) == (None, None)
    assert (table.follows, table.partial, table.processes) == (False, False, frozenset())


def test_marks_are_found_by_device_and_by_fsid() -> None:
    first, clone = marked(), marked(dev=NEXT, since_ns=70)
    other = marked(dev=THIRD, fsid=Fsid(3, 4))
    table = table_of(first, clone, other)
    assert (len(table), list(table)) == (3, [first, clone, other])
    assert table.get(NEXT) is clone
    assert table.by_fsid(Fsid(1, 2)) is first
    assert table.by_fsid(Fsid(3, 4)) is other
    assert table.devices() == {DEV, NEXT, THIRD}
    assert table.newest_ns == 70
    table.set([clone, marked(since_ns=90)])
    assert (list(table), table.newest_ns) == ([clone, marked(since_ns=90)], 90)


def test_a_mark_ends_with_its_superblock_but_not_with_an_earlier_one() -> None:
    mark = marked(since_ns=100)
    table = table_of(mark)
    assert table.end(DEV, 99) is None
    assert table.end(NEXT, 100) is None
    assert table.get(DEV) is mark
    assert table.end(DEV, 100) is mark
    assert (len(table), table.end(DEV, 200)) == (0, None)


def mount(number: int, minor: int, mount_point: str, fstype: str = "ext4") -> Mount:
    return Mount(number, 1, 254, minor, "/", mount_point, fstype, f"/dev/d{minor}", "rw", "rw")


def test_marks_end_by_the_mount_table() -> None:
    kept, over = marked(), marked(dev=NEXT)
    table = table_of(kept, over)
    assert table.end_unmounted((mount(7, 3, "/srv"),)) == [over]
    assert list(table) == [kept]
    assert table.end_unmounted(()) == [kept]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> dict[int, MountTable]:
    """The mount tables of other processes."""
    tables: dict[int, MountTable] = {}
    monkeypatch.setattr(marktable, "read_mounts_of", tables.__getitem__)
    return tables


def test_marks_through_other_processes_end_by_their_tables(
    processes: dict[int, MountTable],
) -> None:
    ours, first, second = (
        marked(dev=Dev(254, minor), mount_point=point)
        for minor, point in ((3, "/srv"), (4, "/proc/1/root/m"), (5, "/proc/5/root/m"))
    )
    table = table_of(ours, first, second)
    assert table.processes == {1, 5}
    processes |= {1: (mount(7, 4, "/m"),), 5: (mount(8, 5, "/m"),)}
    assert table.end_unmounted((mount(7, 3, "/srv"),)) == []
    processes[1] = ()
    assert table.end_unmounted((mount(7, 3, "/srv"),)) == [first]
    assert list(table) == [ours, second]


def test_mount_marks_of_other_processes_end_by_their_tables(
    processes: dict[int, MountTable],
) -> None:
    part = Part(MarkKind.MOUNT, "/proc/1/root/m", TOP, 60, mount=MountId(7, DEV, 1))
    table = table_of(marked(parts=(part,)))
    processes[1] = (mount(7, 3, "/m"),)
    assert table.end_mounts() == table.end_mounts(()) == []
    processes[1] = (mount(8, 3, "/m"),)
    assert table.end_mounts((mount(7, 3, "/m"),)) == [part]


def test_mount_marks_end_with_their_mount_and_the_others_stay() -> None:
    def of_mount(number: int, path: str, process: int = 0) -> Part:
        return Part(MarkKind.MOUNT, path, TOP, 60, mount=MountId(number, DEV, process))

    seven, eight, gone_process = of_mount(7, "/b"), of_mount(8, "/a"), of_mount(9, "/c", 1 << 22)
    table = table_of(
        marked(parts=(PART, seven), ignored=(eight,)),
        marked(dev=NEXT, parts=(seven,)),
        marked(dev=THIRD, parts=(gone_process,), inodes={VICTIM: 60}),
        marked(dev=FOURTH, parts=(seven,), whole_ns=60),
    )
    assert table.processes == {1 << 22}
    # without a table only the mounts of other processes can have ended
    assert table.end_mounts() == [gone_process]
    assert table.end_mounts((mount(7, 3, "/b"), mount(8, 3, "/a"))) == []
    # the same number on another device is another mount
    assert table.end_mounts((mount(7, 4, "/b"), mount(8, 3, "/a"))) == [seven] * 3
    assert list(table) == [
        marked(parts=(PART,), ignored=(eight,)),
        marked(dev=THIRD, inodes={VICTIM: 60}),
        marked(dev=FOURTH, whole_ns=60),
    ]
    assert table.end_mounts(()) == [eight]
    assert table.get(DEV) == marked(parts=(PART,))
    assert gone(eight) == "no longer watching the mount of /a: unmounted"


def test_ended_parts_are_returned_in_the_order_of_their_paths() -> None:
    parts = tuple(
        Part(MarkKind.MOUNT, path, TOP, 60, mount=MountId(7, DEV)) for path in ("/b", "/a")
    )
    assert [p.path for p in table_of(marked(parts=parts)).end_mounts(())] == ["/a", "/b"]


# what marks resolve to


def identity(minor: int, fsid: tuple[int, int], path: str = "/srv") -> FilesystemIdentity:
    return FilesystemIdentity(path, mount(7, minor, path), fsid, 0xEF53, 1)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> dict[Mark, list[Resolved]]:
    """What each mark resolves to; the mount table is empty and it is always 1000."""
    of: dict[Mark, list[Resolved]] = {}

    def resolve(mark: Mark, now_ns: int) -> Iterator[Resolved]:
        assert now_ns == 1000
        return iter(of[mark])

    monkeypatch.setattr(marktable, "resolve", resolve)
    monkeypatch.setattr(marktable, "read_mounts", lambda: ())
    monkeypatch.setattr("time.monotonic_ns", lambda: 1000)
    return of


def test_a_mark_on_a_file_system(resolved: dict[Mark, list[Resolved]]) -> None:
    mark = Mark.filesystem("/srv")
    resolved[mark] = [Resolved("/srv/x", identity(3, (1, 2)), None, "a note")]
    table = MarkTable([mark], superblock=ALL)
    expected = marked(
        path="/srv/x", device="d3", since_ns=1000, whole_ns=1000, superblock=ALL, parts=()
    )
    assert list(table) == [expected]
    assert (table.notes, table.partial, table.follows) == (["a note"], False, False)


def test_marks_on_one_file_system_add_up(resolved: dict[Mark, list[Resolved]]) -> None:
    inode, subtree, whole = Mark.inode("/srv/f"), Mark.subtree("/srv/top"), Mark.filesystem("/srv")
    on_inode = Part(MarkKind.INODE, "/srv/f", FILE, 900)
    resolved[inode] = [Resolved("/srv/f", identity(3, (1, 2)), on_inode)]
    # a subvolume of btrfs has an fsid of its own: the first stays
    resolved[subtree] = [Resolved("/srv/top", identity(3, (8, 9)), PART)]
    resolved[whole] = [Resolved("/srv", identity(3, (5, 6)), None)]
    (both,) = MarkTable([inode, subtree])
    assert (both.inodes, both.parts, both.whole_ns) == ({VICTIM: 1000}, (PART,), None)
    assert both.fsid == Fsid(1, 2)
    (all_of_it,) = MarkTable([inode, subtree, whole])
    assert (all_of_it.inodes, all_of_it.parts) == ({VICTIM: 1000}, (PART,))
    assert (all_of_it.whole_ns, all_of_it.fsid) == (1000, Fsid(5, 6))
    (again,) = MarkTable([whole, subtree])
    assert (again.whole_ns, again.fsid, again.parts) == (1000, Fsid(5, 6), (PART,))


def test_ignore_marks_are_kept_for_what_is_marked_there(
    resolved: dict[Mark, list[Resolved]],
) -> None:
    whole, ignored, all_of_it = Mark.filesystem("/srv"), Mark.subtree("/t"), Mark.filesystem("/i")
    resolved[whole] = [Resolved("/srv", identity(3, (1, 2)), None)]
    resolved[ignored] = [Resolved("/t", identity(3, (1, 2)), PART)]
    resolved[all_of_it] = [Resolved("/i", identity(3, (1, 2)), None)]
    table = MarkTable([whole], ignore=[ignored, all_of_it])
    (marks,) = table
    everything = Part(MarkKind.FILESYSTEM, "/i", InodeId(0, 0, 0), 1000, everything=True)
    assert (marks.ignored, table.partial) == ((PART, everything), True)
    assert MarkTable([], ignore=[ignored]).partial
    # with the superblock its ignore marks are gone too
    assert table.end(DEV, 1000) is marks
    (later,) = follow_again(table)
    assert later.ignored == ()


def follow_again(table: MarkTable) -> list[MarkedFilesystem]:
    """The new marks when the file system of `DEV` is mounted again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marktable, "identify", lambda path: identity(3, (1, 2), path))
        return table.follow((mount(7, 3, "/srv"),))


def test_what_is_mounted_later_is_followed(
    monkeypatch: pytest.MonkeyPatch, resolved: dict[Mark, list[Resolved]]
) -> None:
    bad = {"/bad"}

    def identify(path: str) -> FilesystemIdentity:
        if path in bad:
            raise MarkError(f"{path}: Permission denied", "mark it while it is mounted")
        return identity(int(path[-1]), (1, 2), path)

    monkeypatch.setattr(marktable, "identify", identify)
    mounts: MountTable = (mount(1, 1, "/m1"), mount(2, 2, "/m2", "tmpfs"), mount(3, 3, "/bad"))
    monkeypatch.setattr(marktable, "read_mounts", lambda: mounts)
    table = MarkTable(None)
    assert table.follows
    (first,) = table
    assert (first.path, first.mount_point, first.device) == ("/m1", "/m1", "d1")
    assert first.whole_ns == 1000
    assert table.skipped == {DEV: "/bad: Permission denied; mark it while it is mounted"}
    assert table.follow(mounts) == []
    (new,) = table.follow((*mounts, mount(4, 4, "/m4", "xfs"), mount(5, 5, "/m5", "f2fs"))[:4])
    assert (new.mount_point, new.dev) == ("/m4", NEXT)
    bad.clear()
    monkeypatch.setattr(marktable, "identify", lambda path: identity(3, (1, 2), path))
    assert [m.mount_point for m in table.follow(mounts)] == ["/bad"]
    assert table.skipped == {}


def test_what_is_hidden_or_has_no_fsid_is_not_marked_and_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch, resolved: dict[Mark, list[Resolved]]
) -> None:
    fsids = {"/m4": (1, 2), "/m5": (0, 0)}
    monkeypatch.setattr(
        marktable, "identify", lambda path: identity(int(path[-1]), fsids[path], path)
    )
    hidden, shown, nameless = mount(3, 3, "/m4"), mount(4, 4, "/m4"), mount(5, 5, "/m5")
    monkeypatch.setattr(marktable, "read_mounts", lambda: (hidden, shown, nameless))
    table = MarkTable(None)
    (first,) = table
    assert first.dev == NEXT
    assert list(table.skipped.values()) == [
        "/m4 (ext4 on d3): another mount hides it; mount it at a second place too",
        "/m5 (ext4 on d5): the file system has no fsid; give it a UUID, as tune2fs -U random does",
    ]
    monkeypatch.setattr("time.monotonic_ns", lambda: 2000)
    assert table.follow((hidden, shown, nameless)) == []
    assert list(table) == [first]  # not renewed: what was before now counts still
    assert table.follow((shown,)) == []
    assert table.skipped == {}


def test_a_device_without_a_name_is_called_by_its_number(
    resolved: dict[Mark, list[Resolved]],
) -> None:
    mark = Mark.filesystem("/srv")
    nameless = mount(7, 3, "/srv")._replace(source="/")
    resolved[mark] = [Resolved("/srv", identity(3, (1, 2))._replace(mount=nameless), None)]
    assert [m.device for m in MarkTable([mark])] == ["254:3"]


def test_what_marks_will_not_hear_is_noted(resolved: dict[Mark, list[Resolved]]) -> None:
    marks = [Mark.inode(path) for path in ("/a", "/b", "/c")]
    for mark, note in zip(marks, ("one", "", "two"), strict=True):
        part = Part(MarkKind.INODE, mark.path, FILE, 900)
        resolved[mark] = [Resolved(mark.path, identity(3, (1, 2)), part, note)]
    assert MarkTable(marks).notes == ["one", "two"]


def test_marks_know_when_the_first_was_made_and_the_best_mount(
    monkeypatch: pytest.MonkeyPatch, resolved: dict[Mark, list[Resolved]]
) -> None:
    marks = [Mark.filesystem("/a"), Mark.subtree("/a/top")]
    resolved[marks[0]] = [Resolved("/a", identity(3, (1, 2)), None)]
    resolved[marks[1]] = [Resolved("/a/top", identity(3, (1, 2)), PART)]
    best = mount(9, 3, "/best")
    monkeypatch.setattr(marktable, "read_mounts", lambda: (mount(8, 4, "/o"), best))
    clock = iter((1000, 2000, 1000, 3000))
    monkeypatch.setattr("time.monotonic_ns", lambda: next(clock))
    (both,) = MarkTable(marks)
    assert (both.since_ns, both.whole_ns, both.mount_point) == (2000, 2000, "/best")


@pytest.mark.parametrize("by_table", [False, True])
def test_ignore_marks_end_with_their_file_system(
    resolved: dict[Mark, list[Resolved]], by_table: bool
) -> None:
    whole, ignored = Mark.mount("/srv"), Mark.subtree("/t")
    part = Part(MarkKind.MOUNT, "/srv", TOP, 1000, mount=MountId(7, DEV))
    resolved[whole] = [Resolved("/srv", identity(3, (1, 2)), part)]
    resolved[ignored] = [Resolved("/t", identity(3, (1, 2)), PART)]
    table = MarkTable([whole], ignore=[ignored])
    assert [marks.ignored for marks in table] == [(PART,)]
    if by_table:
        assert len(table.end_unmounted(())) == 1
        assert [marks.ignored for marks in follow_again(table)] == [()]
    else:
        assert table.end_mounts(()) == [part]
        assert [marks.ignored for marks in follow_again(table)] == [(PART,)]
