"""Every error that comes in is counted once, by file system and by place, in bounded memory."""

from __future__ import annotations

import pytest

from fserr_bpf.model.event import FsErrorEvent, Fsid, OverflowEvent
from fserr_bpf.top import model
from fserr_bpf.top.model import Board, FileSystem, Order, Row, Snapshot, ranked
from fserr_bpf.uapi.dev import Dev
from tests.unit.top_events import BEGIN_NS, SECOND, error


def board_of(*events: FsErrorEvent) -> Board:
    board = Board()
    for event in events:
        board.add(event)
    return board


def file_system(minor: int, mount_point: str | None = None) -> FileSystem:
    point = mount_point or f"/srv/{minor}"
    return FileSystem(Fsid(1, minor), Dev(7, minor), f"loop{minor}", point, "ext4")


def check_sums(snapshot: Snapshot) -> None:
    for rows, forgotten in (
        (snapshot.file_systems, snapshot.forgotten_file_systems),
        (snapshot.sites, snapshot.forgotten_sites),
    ):
        assert sum(row.errors for row in rows) + forgotten.errors == snapshot.errors


def test_errors_are_counted_by_file_system_and_by_place() -> None:
    snapshot = board_of(
        error(0, count=3, seconds=1),
        error(1, count=20, seconds=2),
        error(0, count=100, seconds=3, line=2),
        error(0, count=5, seconds=4),
    ).snapshot()
    assert snapshot.errors == 128
    assert set(snapshot.file_systems) == {
        Row(file_system(0), 108, BEGIN_NS + 4 * SECOND),
        Row(file_system(1), 20, BEGIN_NS + 2 * SECOND),
    }
    assert {(r.what.device, r.what.name, r.errors) for r in snapshot.sites} == {
        ("loop0", "ext4_lookup:1", 8),
        ("loop0", "ext4_lookup:2", 100),
        ("loop1", "ext4_lookup:1", 20),
    }
    check_sums(snapshot)


def test_events_are_newest_first_and_overflows_are_among_them() -> None:
    overflow = OverflowEvent(time_ns=1)
    board = board_of(error(0))
    board.add(overflow)
    board.add(error(1))
    snapshot = board.snapshot()
    assert snapshot.events == (error(1), overflow, error(0))
    assert snapshot.errors == 2


def test_last_is_the_newest_whatever_the_order() -> None:
    (row,) = board_of(error(seconds=9), error(seconds=2)).snapshot().file_systems
    assert row.last_ns == BEGIN_NS + 9 * SECOND


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"function": "f", "line": 7, "failaddr": 9}, "f:7"),
        ({"function": "f", "line": 0, "failaddr": 9}, "f"),
        ({"function": "", "line": 0, "failaddr": 0xFFFFFFFF81000000}, "0xffffffff81000000"),
        ({"function": "", "line": 0, "failaddr": 0}, "kprobe:__ext4_error"),
    ],
)
def test_place_is_the_best_that_is_known(fields: dict[str, object], name: str) -> None:
    (row,) = board_of(error(**fields)).snapshot().sites  # type: ignore[arg-type]
    assert row.what.name == name


def test_address_does_not_part_what_its_function_names() -> None:
    (row,) = board_of(error(failaddr=1), error(failaddr=2)).snapshot().sites
    assert row.errors == 2


def test_watched_without_errors_and_unmounted_with_errors_are_listed() -> None:
    board = board_of(error(0))
    board.watch([file_system(0), file_system(1)])
    board.watch([file_system(1), file_system(2)])
    snapshot = board.snapshot()
    assert {(row.what, row.errors) for row in snapshot.file_systems} == {
        (file_system(0), 1),
        (file_system(1), 0),
        (file_system(2), 0),
    }
    assert snapshot.watched == {file_system(1).key, file_system(2).key}


def test_mounted_somewhere_else_it_is_the_same_file_system() -> None:
    board = board_of(error(0), error(0, mount_point="/mnt"))
    board.watch([file_system(0, "/mnt")])
    assert [(r.what, r.errors) for r in board.snapshot().file_systems] == [
        (file_system(0, "/mnt"), 2)
    ]


def test_memory_is_bounded_and_nothing_is_lost_from_the_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, limit in (("KEPT_FILE_SYSTEMS", 2), ("KEPT_SITES", 3), ("KEPT_EVENTS", 4)):
        monkeypatch.setattr(model, name, limit)
    board = board_of(*(error(minor, count=10**minor) for minor in range(5)), error(3), error(0))
    snapshot = board.snapshot()
    assert [row.what.device for row in snapshot.file_systems] == ["loop3", "loop0"]
    assert snapshot.forgotten_file_systems == (4, 11110 + 1 - 1000)
    assert [row.what.device for row in snapshot.sites] == ["loop4", "loop3", "loop0"]
    assert snapshot.forgotten_sites == (3, 111)
    assert snapshot.events == (error(0), error(3), error(4, count=10**4), error(3, count=10**3))
    assert snapshot.forgotten_events == 3
    check_sums(snapshot)


def test_ranks() -> None:
    snapshot = board_of(
        error(0, count=2, seconds=1), error(1, count=1, seconds=9), error(2, count=2, seconds=1)
    ).snapshot()
    names = {
        order: [row.what.device for row in ranked(reversed(snapshot.file_systems), order)]
        for order in Order
    }
    assert names == {
        Order.COUNT: ["loop0", "loop2", "loop1"],
        Order.TIME: ["loop1", "loop0", "loop2"],
    }


def test_error_without_origin_is_refused() -> None:
    with pytest.raises(ValueError, match="without its origin"):
        Board().add(error()._replace(origin=None))
