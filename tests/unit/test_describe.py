"""Events of reports: what the probe saw of task, place and name, and what nobody may see."""

from __future__ import annotations

import time

import pytest

from fserr_bpf.codec.entry import Entry
from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.group.describe import Pids, detail_of, overflow_event
from fserr_bpf.model.event import (
    Detail,
    FileHandle,
    FsErrorEvent,
    Fsid,
    Origin,
    OverflowEvent,
    PathState,
)
from fserr_bpf.uapi.entry import DetailRecord, NameFlag
from fserr_bpf.uapi.record import Flag, Probe, Record
from tests.ring_values import DEV, detail, marked, record
from tests.stub_probes import OFFSET, errors_in, group_of, kernel_event, observed

INSIDE = detail(
    b"victim",
    b"group7",
    stack=tuple(range(10, 18)),
    task_cgroup=77,
    inode_cgroup=78,
    name_flags=NameFlag.WHOLE,
)
WRITEBACK = record(Probe.WRITEBACK)
WHOLE = marked(whole_ns=50)


def made(
    record: Record,
    detail: DetailRecord | None = INSIDE,
    error: int = 5,
    *,
    owners: bool = True,
    source: str = "kprobe:f",
) -> Detail:
    return detail_of(Entry(record, detail), error, source, owners=owners)


def test_a_writeback_belongs_to_who_wrote() -> None:
    told = made(WRITEBACK)
    assert (told.kind, told.cgroup_id, told.cgroup_of) == ("WRITEBACK", 78, "inode")
    assert told.stack == tuple(range(11, 18))
    assert (told.name, told.name_state) == ("group7/victim", "whole")
    for other in (
        made(WRITEBACK, owners=False),
        made(WRITEBACK, INSIDE._replace(inode_cgroup=0)),
        made(record(Probe.EXT4_ERROR_INODE)),
    ):
        assert (other.cgroup_id, other.cgroup_of) == (77, "task")


def test_a_soft_interrupt_has_no_task() -> None:
    in_interrupt = record(Probe.WRITEBACK, flags=int(Flag.IN_INTERRUPT))
    assert made(in_interrupt).cgroup_of == "inode"
    told = made(in_interrupt, owners=False)
    assert (told.cgroup_id, told.cgroup_of) == (0, "")


def test_without_details_the_record_still_tells() -> None:
    assert made(record(Probe.XFS_BUF_TRACE, length=512), None) == Detail("METADATA", length=512)


@pytest.mark.parametrize(
    ("type_", "kind"),
    [(1, "READ"), (2, "WRITEBACK"), (3, "DIRECT_READ"), (4, "DIRECT_WRITE"), (5, "DATA_LOST")],
)
def test_linux_7_says_the_kind_itself(type_: int, kind: str) -> None:
    seen = record(Probe.FSERROR, block=4096, length=100)
    told = made(seen, INSIDE._replace(type=type_))
    assert (told.kind, told.pos, told.length) == (kind, 4096, 100)
    assert made(seen, INSIDE._replace(type=type_), 108).kind == "SHUTDOWN"


def test_a_type_of_tomorrow_is_metadata() -> None:
    assert made(record(Probe.FSERROR), INSIDE._replace(type=99)).kind == "METADATA"


@pytest.mark.parametrize(
    ("names", "flags", "expected"),
    [
        ((), NameFlag.WHOLE, ("", "whole")),
        ((), 0, ("", "")),
        ((b"f",), 0, ("f", "part")),
        ((b"f", b"d"), NameFlag.WHOLE | NameFlag.DELETED, ("d/f", "deleted")),
        ((), NameFlag.WHOLE | NameFlag.DELETED, ("", "whole")),  # the root is never hashed
        ((b"f", b"d"), NameFlag.DELETED, ("d/f", "part")),
        ((b"f", b"x" * 63), NameFlag.WHOLE, ("f", "part")),
        ((b"x" * 63, b"d"), NameFlag.WHOLE, ("", "")),
        ((b"\xff\n\x1b[31m",), NameFlag.WHOLE, ("\udcff\n\x1b[31m", "whole")),
    ],
)
def test_names(names: tuple[bytes, ...], flags: int, expected: tuple[str, str]) -> None:
    told = made(WRITEBACK, detail(*names, name_flags=flags))
    assert (told.name, told.name_state) == expected


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (record(Probe.XFS_INODE_VERIFIER), PathState.NOT_ASKED),
        (record(Probe.XFS_INODE_SICK), PathState.NOT_ASKED),
        (record(Probe.EXT4_ERROR_INODE, function=b"__ext4_iget"), PathState.NOT_ASKED),
        (record(Probe.EXT4_ERROR_INODE, function=b"__ext4_get_inode_loc"), PathState.NOT_ASKED),
        (record(Probe.EXT4_ERROR_INODE, function=b"ext4_find_extent"), PathState.NONE),
        (record(Probe.EXT4_ERROR_INODE, function=b"__check_inode"), PathState.NOT_ASKED),
        (record(Probe.EXT4_ERROR_INODE, function=b"ext4_check_inode_x"), PathState.NONE),
        (record(Probe.EXT4_ERROR_INODE, function=b"f\0iget\0"), PathState.NONE),
        (record(Probe.EXT4_ERROR_INODE, function=b"a check_inode"), PathState.NOT_ASKED),
        (WRITEBACK, PathState.NONE),
    ],
)
def test_a_bad_inode_is_left_alone(seen: Record, state: PathState) -> None:
    assert made(seen).path_state == state


def test_metadata_errors_of_linux_7_may_be_of_an_inode_nobody_could_read() -> None:
    seen = record(Probe.FSERROR)
    nameless = INSIDE._replace(type=6, name_flags=0, names=(b"\0" * 64,) * 8)
    assert made(seen, nameless).path_state == PathState.NOT_ASKED
    assert made(seen, nameless._replace(type=1)).path_state == PathState.NONE
    assert made(seen, INSIDE._replace(type=6)).path_state == PathState.NONE


@pytest.mark.parametrize(
    ("source", "own"), [("kprobe:f", 1), ("raw_tracepoint:f", 2), ("tracepoint:x:f", 2)]
)
def test_the_stack_is_that_of_the_callers(source: str, own: int) -> None:
    assert made(WRITEBACK, source=source).stack == tuple(range(10 + own, 18))
    deep = detail(stack=tuple(range(1, 11)))
    assert made(WRITEBACK, deep, source=source).stack == tuple(range(1 + own, 11))[:8]
    assert len(made(WRITEBACK, deep).stack) == 8
    with_hole = detail(stack=(1, 2, 0, 4))
    assert made(WRITEBACK, with_hole).stack == (2, 4)


def test_what_7_x_says_it_is_goes_before_what_the_probe_says() -> None:
    assert made(WRITEBACK, detail(type=1)).kind == "READ"
    assert made(record(Probe.EXT4_STD_ERROR), detail(type=0)).kind == "JOURNAL"
    kinds = [made(record(Probe.FSERROR), detail(type=t), owners=False).kind for t in range(8)]
    assert kinds == [
        *("METADATA", "READ", "WRITEBACK", "DIRECT_READ", "DIRECT_WRITE", "DATA_LOST"),
        *("METADATA", "METADATA"),
    ]


def test_a_position_is_one_in_7_x_only() -> None:
    assert made(record(Probe.XFS_BUF_TRACE, block=8)).pos == 0
    assert made(record(Probe.FSERROR, block=8), None).pos == 8


def test_an_owner_is_asked_for_of_writeback_only() -> None:
    seen = record(Probe.FSERROR)
    owners = [made(seen, INSIDE._replace(type=t)).cgroup_id for t in (1, 2, 6)]
    assert owners == [77, 78, 77]


# numbers of tasks


def test_which_number_of_a_task_is_shown() -> None:
    seen = record(Probe.WRITEBACK)
    trace = record(Probe.EXT4_TRACE, tid=75)
    process, thread = Pids(thread=False), Pids(thread=True)
    assert [pids.of_task(seen) for pids in (process, thread)] == [70, 71]
    assert [pids.of_event(33, None) for pids in (process, thread)] == [33, 33]
    assert [pids.of_event(33, trace) for pids in (process, thread)] == [33, 75]


class Shifted(Pids):
    """As a client in another pid namespace sees them."""

    def of_task(self, record: Record) -> int:
        return super().of_task(record) + 1000

    def of_event(self, pid: int, trace: Record | None) -> int:
        return super().of_event(pid, trace) + 2000


def test_the_reader_is_shown_its_own_numbers_and_merging_goes_by_ours() -> None:
    group = group_of(WHOLE, pids=Shifted(thread=False))
    for _ in range(2):
        group.insert(observed(WRITEBACK))
    group.insert(observed(record(Probe.WRITEBACK, flags=Flag.IN_INTERRUPT)))
    group.insert(kernel_event(FsErrorEvent(Fsid(1, 2), HANDLE, 117, 3, 70)))
    shown = [(event.pid, event.error_count) for event in errors_in(group)]
    assert shown == [(1070, 2), (0, 1), (2070, 3)]


# whole events


SEEN = record(
    Probe.EXT4_ERROR_INODE,
    flags=Flag.HAS_INODE,
    ino=99,
    generation=7,
    function=b"ext4_find_extent\xff",
    line=900,
    block=33,
    length=512,
    failaddr=0xFFFFFFFF81234567,
)
ORIGIN = Origin(
    time_ns=1000 + OFFSET,
    dev=DEV,
    device="sda3",
    mount_point="/srv",
    fstype="ext4",
    ino=99,
    generation=7,
    tid=71,
    comm="cat",
    source="kprobe:ext4_error_inode",
    function="ext4_find_extent\\xff",
    line=900,
    failaddr=0xFFFFFFFF81234567,
    block=33,
    task_start=7,
)
HANDLE = FileHandle(1, bytes.fromhex("63000000 07000000"))


def test_an_event_of_a_probe() -> None:
    group = group_of(WHOLE)
    group.insert(observed(SEEN))
    assert errors_in(group) == [FsErrorEvent(Fsid(1, 2), HANDLE, 5, 1, 70, origin=ORIGIN)]


def test_an_event_of_nobody() -> None:
    group = group_of(WHOLE)
    group.insert(observed(SEEN._replace(flags=int(Flag.HAS_INODE | Flag.IN_INTERRUPT))))
    nobody = ORIGIN._replace(tid=0, comm="", task_start=0)
    assert errors_in(group) == [FsErrorEvent(Fsid(1, 2), HANDLE, 5, 1, 0, origin=nobody)]


@pytest.mark.parametrize("addresses", [False, True])
def test_an_event_with_the_proposals_records(addresses: bool) -> None:
    flags = GroupFlags(pidfd=True, numbers=True, detail=True, location=True)
    group = group_of(WHOLE, flags=flags, addresses=addresses, owners=True)
    group.insert(observed(SEEN, detail=INSIDE))
    event = group.queue.pop()
    assert isinstance(event, FsErrorEvent)
    assert (event.fd, event.pidfd) == (-9, -3)
    assert [record.info_type for record in event.extra] == [8, 9]
    failaddr = SEEN.failaddr if addresses else 0
    assert event.extra[0].data[28:36] == failaddr.to_bytes(8, "little")
    assert event.origin == ORIGIN._replace(detail=made(SEEN))


def test_addresses_are_for_groups_with_details() -> None:
    group = group_of(WHOLE, flags=GroupFlags(location=True), addresses=True)
    group.insert(observed(SEEN))
    (event,) = errors_in(group)
    assert [record.info_type for record in event.extra] == [9]


@pytest.mark.parametrize("owners", [False, True])
def test_details_of_a_group_that_has_them(owners: bool) -> None:
    group = group_of(WHOLE, owners=owners)
    group.insert(observed(WRITEBACK, detail=INSIDE))
    (event,) = errors_in(group)
    assert event.origin is not None
    assert event.origin.detail == made(WRITEBACK, owners=owners)
    assert event.origin.detail is not None
    assert event.origin.detail.cgroup_id == (78 if owners else 77)


def test_an_overflow_has_the_time_of_the_clock_of_events() -> None:
    before = time.time_ns()
    overflow = overflow_event(GroupFlags(pidfd=True, numbers=True))
    assert before <= overflow.time_ns <= time.time_ns()
    assert overflow._replace(time_ns=0) == OverflowEvent(fd=-9, pidfd=-3)
