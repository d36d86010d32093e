"""What the terminal shows, at every size, whatever the names are."""

from __future__ import annotations

import itertools
import math

import pytest

from fserr_bpf.uapi.dev import Dev

pytest.importorskip("rich")

from rich.cells import cell_len

from fserr_bpf.model.event import Detail, Event, Fsid, OverflowEvent
from fserr_bpf.model.state import Condition, FilesystemState
from fserr_bpf.top.ages import Ages
from fserr_bpf.top.columns import Column, fit, pad, shorten
from fserr_bpf.top.model import Board, FileSystem, Order
from fserr_bpf.top.view import Frame, count, render
from tests.unit.top_events import BEGIN_NS, SECOND, error

NOTICE = "cannot see fatal btrfs errors: the kernel has no kprobes"
FRAME = Frame("proposed", Order.COUNT, paused=False, notices=[NOTICE])
CONDITIONS = (Condition.OK, Condition.READ_ONLY, Condition.SHUTDOWN)
QUIET = FileSystem(Fsid(1, 99), Dev(8, 0), "sda", "/", "ext4")
HOSTILE = "\x1b[31m\n[red]\x9b\udcff数\\"


def shown(
    *events: Event,
    width: int = 80,
    height: int | None = None,
    frame: Frame = FRAME,
    seconds: float = 0,
    quiet: int = 0,
) -> list[str]:
    board = Board()
    for event in events:
        board.add(event)
    more = (QUIET._replace(dev=Dev(8, minor), mount_point="/x") for minor in range(1, quiet + 1))
    board.watch([QUIET, FileSystem(Fsid(1, 0), Dev(7, 0), "loop0", "/srv/0", "ext4"), *more])
    ages = Ages(BEGIN_NS + int(seconds * SECOND))
    return [line.plain.rstrip() for line in render(board.snapshot(), frame, ages, width, height)]


def test_whole_view() -> None:
    events: list[Event] = [
        error(0, count=3, ino=12),
        error(1, count=20000000, seconds=30, function="", line=0, comm=""),
        OverflowEvent(time_ns=0),
    ]
    # fmt: off
    assert shown(*events, seconds=150) == [
        "fserr-bpf top   20M errors on 2 of 3 file systems             proposed, by count",
        "cannot see fatal btrfs errors: the kernel has no kprobes",
        "",
        " ERRORS  LAST      DEVICE    STATE           TYPE      MOUNT POINT",
        "    20M  2 min     loop1     -               ext4      /srv/1 (unmounted)",
        "      3  2 min     loop0     -               ext4      /srv/0",
        "      0  -         sda       -               ext4      /",
        "",
        " ERRORS  LAST      DEVICE    ERROR         PLACE",
        "    20M  2 min     loop1     EFSCORRUPTED  kprobe:__ext4_error",
        "      3  2 min     loop0     EFSCORRUPTED  ext4_lookup:1",
        "",
        "  COUNT  TIME      DEVICE    ERROR         OBJECT             PROCESS",
        "--:--:--.------ FAN_Q_OVERFLOW: the queue was full, events are missing here",
        f"    20M  {Ages(BEGIN_NS).clock(BEGIN_NS + 30 * SECOND)}  loop1     EFSCORRUPTED  "
        "superblock         pid 5",
        f"      3  {Ages(BEGIN_NS).clock(BEGIN_NS)}  loop0     EFSCORRUPTED  "
        "ino 12             cat[5]",
    ]
    # fmt: on


def test_a_file_system_that_is_not_ok_comes_before_those_that_are() -> None:
    board = Board()
    names = ("sda", "sdb", "sdc")
    watched = [FileSystem(Fsid(1, i), Dev(8, i), n, f"/{n}", "xfs") for i, n in enumerate(names)]
    board.watch(watched)
    states = {
        Dev(8, i): FilesystemState(Dev(8, i), n, "", (), "xfs", (f"/{n}",), False, condition)
        for i, (n, condition) in enumerate(zip(names, CONDITIONS, strict=True))
    }
    snapshot = board.snapshot()._replace(states=states)
    lines = render(snapshot, FRAME._replace(notices=[]), Ages(BEGIN_NS), 80, 8)
    assert [line.plain.rstrip() for line in lines][:5] == [
        "fserr-bpf top   0 errors on 0 of 3 file systems, 1 not ok     proposed, by count",
        " ERRORS  LAST      DEVICE    STATE           TYPE      MOUNT POINT",
        "      0  -         sdc       shut down       xfs       /sdc",
        "      0  -         sda       ok              xfs       /sda",
        "      0  -         sdb       read-only       xfs       /sdb",
    ]


def test_without_errors_it_says_so() -> None:
    assert shown(height=8) == [
        "fserr-bpf top   0 errors on 0 of 2 file systems               proposed, by count",
        NOTICE,
        " ERRORS  LAST      DEVICE    STATE           TYPE      MOUNT POINT",
        "      0  -         sda       -               ext4      /",
        "      0  -         loop0     -               ext4      /srv/0",
        *([""] * 2),
        "q quit   c by count   t by time   p pause",
    ]


def test_damaged_file_systems_and_events_go_before_quiet_file_systems() -> None:
    events = [error(line=line) for line in range(1, 9)]
    lines = shown(*events, height=15, quiet=20)
    assert [line.split()[0] for line in lines[2:-1]] == [
        *("ERRORS", "8", "and"),
        *("ERRORS", "1", "1", "1", "and"),
        *("COUNT", "1", "1", "and"),
    ]
    assert [line for line in lines if line.startswith("and")] == [
        "and 21 more",
        "and 5 more",
        "and 6 more",
    ]


def test_paused_and_order_are_in_the_first_line() -> None:
    by_time = FRAME._replace(order=Order.TIME)
    assert shown(frame=by_time)[0].endswith("proposed, by time")
    assert shown(frame=by_time._replace(paused=True))[0].endswith(" PAUSED")


@pytest.mark.parametrize("name", [HOSTILE, "x" * 300, "数" * 200, "[bold]", ""])
@pytest.mark.parametrize("events", [0, 1, 40])
def test_fills_every_size_exactly_and_nothing_drives_the_terminal(name: str, events: int) -> None:
    board = Board()
    for minor in range(events):
        board.add(error(minor, mount_point=name, function=name, comm=name, device=name))
    board.watch([QUIET._replace(mount_point=name), *[QUIET] * 30])
    snapshot = board.snapshot()
    frame = FRAME._replace(notices=[NOTICE, f"now watching {name} (ext4)"] * 3)
    for width, height in itertools.product(range(1, 140, 3), (1, 2, 3, 5, 8, 14, 15, 24, 40)):
        lines = render(snapshot, frame, Ages(BEGIN_NS), width, height)
        assert len(lines) == height, width
        for line in lines:
            assert cell_len(line.plain) <= width, line.plain
            assert line.plain.isprintable()


def test_hostile_names_are_escaped() -> None:
    (line,) = (line for line in shown(error(mount_point=HOSTILE), width=140) if "x1b" in line)
    assert r"\x1b[31m\x0a[red]\x9b\xff数\x5c" in line


@pytest.mark.parametrize(
    ("mount_point", "detail", "words"),
    [
        ("/srv", Detail("METADATA", path="/srv/a/b", name="b"), "/a/b"),
        ("/", Detail("METADATA", path="/a/b"), "/a/b"),
        ("/srv", Detail("METADATA", path="/srv"), "/srv"),
        ("/srv", Detail("METADATA", path="/srv2/a"), "/srv2/a"),
        ("/srv", Detail("METADATA", name="a/b"), "a/b"),
        ("/srv", Detail("METADATA"), "ino 7"),
    ],
)
def test_object_is_the_best_that_is_known(mount_point: str, detail: Detail, words: str) -> None:
    event = error(mount_point=mount_point, ino=7, detail=detail)
    assert shown(event)[-1].split("EFSCORRUPTED  ")[1].split("  ")[0] == words


def test_notices_that_have_no_room_are_counted() -> None:
    lines = shown(frame=FRAME._replace(notices=["a", "b", "c", "d"]), height=10)
    assert lines[1:3] == ["a", "and 3 more lines"]


def test_sections_that_have_no_room_for_rows_are_left_out() -> None:
    lines = shown(error(), height=10)
    assert sum("ERRORS" in line for line in lines) == 1
    assert sum("COUNT" in line for line in lines) == 0


@pytest.mark.parametrize(
    ("seconds", "words", "changes_in"),
    [
        (-5, "now", 10),
        (0, "now", 10),
        (9.5, "now", 0.5),
        (10, "10 s", 10),
        (59.75, "50 s", 0.25),
        (60, "1 min", 60),
        (3599, "59 min", 1),
        (3600, "1 h", 3600),
        (86400 * 400 + 1, "400 d", 86399),
    ],
)
def test_ages(seconds: float, words: str, changes_in: float) -> None:
    ages = Ages(BEGIN_NS + int(seconds * SECOND))
    assert ages.changes_in == math.inf
    assert ages.ago(BEGIN_NS) == words
    assert ages.changes_in == changes_in


def test_the_first_age_that_changes_counts() -> None:
    ages = Ages(BEGIN_NS)
    for seconds in (3000, 55, 7200):
        ages.ago(BEGIN_NS - seconds * SECOND)
    assert ages.changes_in == 5


def test_day_is_shown_where_it_is_not_today() -> None:
    assert Ages(BEGIN_NS + 86400 * SECOND).clock(BEGIN_NS).startswith("Sep 2")
    assert len(Ages(BEGIN_NS).clock(BEGIN_NS)) == 8


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (9999999, "9999999"),
        (10**7, "10M"),
        (1999999999, "1G"),
        (2**32 * 10**6, "4P"),
    ],
)
def test_counts_never_lose_digits_from_their_middle(number: int, words: str) -> None:
    assert count(number) == words


@pytest.mark.parametrize(
    ("text", "width", "result"),
    [
        ("abcdefgh", 8, "abcdefgh"),
        ("abcdefgh", 7, "abc…fgh"),
        ("abcdefgh", 2, "a…"),
        ("abcdefgh", 1, "…"),
        ("abcdefgh", 0, ""),
        ("数据数据", 8, "数据数据"),
        ("数据数据", 7, "数据…据"),
        ("数据数据", 6, "数…据"),
    ],
)
def test_shortening(text: str, width: int, result: str) -> None:
    assert shorten(text, width) == result
    assert cell_len(pad(text, width)) == width


def test_columns_leave_by_rank_and_grow_by_what_is_left() -> None:
    columns = [Column("A", 4), Column("B", 4, rank=1, grows=True), Column("C", 4, rank=2)]
    assert fit(columns, 30) == [4, 18, 4]
    assert fit(columns, 16) == [4, 4, 4]
    assert fit(columns, 15) == [4, 9, 0]
    assert fit(columns, 9) == [4, 0, 0]
    assert fit(columns, 1) == [4, 0, 0]
