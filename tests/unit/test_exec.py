"""The calls that are taken over, in words, and the queue of an emulated group."""

from __future__ import annotations

import errno

import pytest

from fserr_bpf.codec.groupflags import GroupFlags
from fserr_bpf.exec.clientqueue import ClientQueue
from fserr_bpf.exec.fanotifycalls import InitCall, MarkCall
from fserr_bpf.exec.lines import ErrorLines
from fserr_bpf.exec.report import Outcome, Report
from fserr_bpf.model.event import FsErrorEvent, Fsid, InfoRecord, OtherEvent, OverflowEvent

ALL_64 = (1 << 64) - 1


def test_init_in_words() -> None:
    assert str(InitCall.of((0x203, 0o2000000, 9, 9, 9, 9))) == (
        "fanotify_init(FAN_CLOEXEC|FAN_NONBLOCK|FAN_REPORT_FID, 0o2000000)"
    )
    assert str(InitCall.of((0, 0, 0, 0, 0, 0))) == "fanotify_init(0x0, 0o0)"


def test_the_upper_half_of_a_register_is_no_part_of_an_int() -> None:
    call = InitCall.of((1 << 32 | 0x200, 5 << 40, 0, 0, 0, 0))
    assert call == InitCall(0x200, 0)
    mark = MarkCall.of((ALL_64, 1 << 33 | 0x101, ALL_64, (1 << 32) - 100, ALL_64, 0))
    assert mark[:5] == (-1, 0x101, ALL_64, -100, ALL_64)


def test_mark_in_words_before_and_after_its_path_was_read() -> None:
    mark = MarkCall.of((3, 0x101, 0x40008000, (1 << 32) - 100, 0x7FFF0000, 0))
    words = (
        "fanotify_mark(3, FAN_MARK_ADD|FAN_MARK_FILESYSTEM, FAN_FS_ERROR|FAN_ONDIR, AT_FDCWD, {})"
    )
    assert str(mark) == words.format("0x7fff0000")
    assert str(mark._replace(name=b"/srv/\xff")) == words.format(r"'/srv/\xff'")


def test_unknown_bits_stay_numbers() -> None:
    mark = MarkCall.of((3, 0x80000002, 0x100, 7, 0, 0))
    assert str(mark) == "fanotify_mark(3, FAN_MARK_REMOVE|0x80000000, 0x100, 7, 0x0)"


def mark_with(flags: int, mask: int = 0x8000) -> MarkCall:
    return MarkCall.of((3, flags, mask, (1 << 32) - 100, 0, 0))


@pytest.mark.parametrize(
    ("flags", "whole", "of_inode"),
    [(0x101, True, False), (0x1, False, True), (0x11, False, False), (0x111, False, False)],
)
def test_kinds_of_marks(flags: int, whole: bool, of_inode: bool) -> None:
    mark = mark_with(flags)
    assert (mark.whole, mark.of_inode) == (whole, of_inode)


@pytest.mark.parametrize(("flags", "ignores"), [(0x121, True), (0x541, True), (0x141, False)])
def test_ignore_marks(flags: int, ignores: bool) -> None:
    assert mark_with(flags).ignores is ignores


@pytest.mark.parametrize(
    ("flags", "removes", "flushes"),
    [(0x101, False, False), (0x102, True, False), (0x180, False, True)],
)
def test_what_is_done_with_a_mark(flags: int, removes: bool, flushes: bool) -> None:
    mark = mark_with(flags)
    assert (mark.removes, mark.flushes) == (removes, flushes)


@pytest.mark.parametrize(("mask", "errors"), [(0x40008000, True), (0x40000100, False)])
def test_marks_for_errors(mask: int, errors: bool) -> None:
    assert mark_with(0x101, mask).errors is errors


def test_look_up_flags_and_kind_are_kept_apart_from_what_is_asked() -> None:
    mark = mark_with(0x54D)
    assert (mark.kind, mark.lookup) == (0x100, 0xC)


def test_report_counts_and_writes(capfd: pytest.CaptureFixture[str]) -> None:
    with ErrorLines() as lines:
        report = Report(lines, enabled=True)
        report.groups = 1
        report.call(InitCall(0x200, 0), 7, Outcome.EMULATED, "group 1")
        report.call(InitCall(0, 0), 8, Outcome.LET_THROUGH, "why\nnot")
        report.line("group 1: nothing")
        report.end()
    assert capfd.readouterr().err.splitlines() == [
        "fserr-bpf: 7: fanotify_init(FAN_REPORT_FID, 0o0): emulated, group 1",
        r"fserr-bpf: 8: fanotify_init(0x0, 0o0): let through, why\x0anot",
        "fserr-bpf: group 1: nothing",
        "fserr-bpf: calls: 1 emulated, 1 let through; 1 groups emulated",
    ]


def test_a_report_that_is_off_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with ErrorLines() as lines:
        report = Report(lines, enabled=False)
        report.call(InitCall(0x200, 0), 7, Outcome.EMULATED, "group 1")
        report.line("group 1: nothing")
        report.end()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("result", "words"), [(0, "0"), (4, "4"), (-errno.EINVAL, "-1 EINVAL"), (-4095, "-1 4095")]
)
def test_results_as_strace_has_them(
    capfd: pytest.CaptureFixture[str], result: int, words: str
) -> None:
    with ErrorLines() as lines:
        Report(lines, enabled=True).result(InitCall(0, 0), 7, result)
    assert capfd.readouterr().err == f"fserr-bpf: 7: fanotify_init(0x0, 0o0): emulated, {words}\n"


def queue_of(flags: GroupFlags) -> ClientQueue:
    return ClientQueue(4, lambda pid: pid - 100, flags)


ERROR = FsErrorEvent(Fsid(1, 2), None, 5, 1, 107, pidfd=-1)


@pytest.mark.parametrize(
    ("flags", "pidfd"),
    [
        (GroupFlags(pidfd=True), -2),
        (GroupFlags(pidfd=True, numbers=True), -errno.EOPNOTSUPP),
        (GroupFlags(), None),
    ],
)
def test_a_pidfd_could_not_be_made(flags: GroupFlags, pidfd: int | None) -> None:
    queue = queue_of(flags)
    queue.insert(ERROR.fsid, 1, lambda: ERROR)
    assert queue.pop() == ERROR._replace(pidfd=pidfd)
    name = InfoRecord(2, 0, b"name")
    for _ in range(2):  # which merge
        queue.insert_from_kernel(OtherEvent(0x100, 107, -1, (name,)))
    event = queue.pop()
    assert isinstance(event, OtherEvent)
    assert not queue
    data = [] if pidfd is None else [InfoRecord(4, 0, pidfd.to_bytes(4, "little", signed=True))]
    assert list(event.extra) == [name, *data]


def test_only_a_queue_that_gets_something_is_told_before() -> None:
    queue, told = queue_of(GroupFlags()), []
    queue.before_insert = lambda: told.append(len(queue))
    queue.insert(ERROR.fsid, 1, lambda: ERROR)
    queue.insert_from_kernel(OtherEvent(0x100, 107, -1))
    queue.insert_from_kernel(OverflowEvent())
    assert told == [0, 1, 2]


def test_an_event_of_nobody_has_no_pidfd() -> None:
    queue = queue_of(GroupFlags(pidfd=True))
    queue.insert(ERROR.fsid, None, lambda: ERROR._replace(pid=0))
    queue.insert_from_kernel(OtherEvent(0x100, 100, -1))
    assert queue.pop() == ERROR._replace(pid=0)
    assert queue.pop() == OtherEvent(0x100, 0, -1, (InfoRecord(4, 0, b"\xff" * 4),))


def test_ordinary_events_get_the_clients_pids_and_the_kernels_overflow_is_ours() -> None:
    queue = queue_of(GroupFlags())
    event = OtherEvent(0x100, 107, -1, (InfoRecord(2, 0, b"name"),))
    queue.insert_from_kernel(event)
    queue.insert_from_kernel(OverflowEvent())
    queue.insert_from_kernel(OverflowEvent())
    assert queue.pop() == event._replace(pid=7)
    overflow = queue.pop()
    assert isinstance(overflow, OverflowEvent)
    assert overflow._replace(time_ns=0) == OverflowEvent()
    assert not queue
