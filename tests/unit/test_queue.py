"""The rules of the notification queue, one by one, and fanotify_read() over it."""

from __future__ import annotations

import errno

import pytest

from fserr_bpf.codec.fanotify import encode
from fserr_bpf.codec.reader import read
from fserr_bpf.model.event import (
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.model.queue import MAX_QUEUED_EVENTS, NotificationQueue, Result

A, B = Fsid(1, 0), Fsid(2, 0)
QUEUED, MERGED, OVERFLOW = Result.QUEUED, Result.MERGED, Result.OVERFLOW


def event(fsid: Fsid, ino: int, error: int, pid: int) -> FsErrorEvent:
    return FsErrorEvent(fsid, FileHandle(1, ino.to_bytes(8, "little")), error, 1, pid)


def put(queue: NotificationQueue, fsid: Fsid, pid: int, error: int = 117) -> Result:
    return queue.insert(fsid, (pid, 1000), lambda: event(fsid, error, error, pid))


def test_first_error_handle_and_position_stay_and_the_count_grows() -> None:
    queue = NotificationQueue()
    assert [put(queue, A, 1, 5), put(queue, A, 2, 6), put(queue, A, 1, 74)] == [
        QUEUED,
        QUEUED,
        MERGED,
    ]
    assert queue.pop() == event(A, 5, 5, 1)._replace(error_count=2)
    assert queue.pop() == event(A, 6, 6, 2)
    assert (queue.inserted, queue.merged, queue.overflowed) == (2, 1, 0)


def test_other_task_or_file_system_does_not_merge() -> None:
    queue = NotificationQueue()
    assert [put(queue, A, 1), put(queue, B, 1), put(queue, A, 2)] == [QUEUED] * 3


def test_a_reused_pid_does_not_merge() -> None:
    queue = NotificationQueue()
    for start in (1000, 1001):
        assert queue.insert(A, (7, start), lambda: event(A, 1, 5, 7)) is QUEUED


def test_a_read_event_merges_no_more() -> None:
    queue = NotificationQueue()
    put(queue, A, 1)
    assert queue.peek() == event(A, 117, 117, 1)
    assert put(queue, A, 1) is MERGED
    queue.pop()
    assert put(queue, A, 1) is QUEUED


def test_error_count_wraps_at_32_bits() -> None:
    queue = NotificationQueue()
    queue.insert(A, 1, lambda: event(A, 1, 5, 1), count=2**32 - 1)
    queue.insert(A, 1, lambda: event(A, 1, 5, 1))
    popped = queue.pop()
    assert isinstance(popped, FsErrorEvent)
    assert popped.error_count == 0
    assert queue.inserted + queue.merged == 2**32


def test_full_is_tested_before_merging_and_overflow_comes_once_on_top() -> None:
    queue = NotificationQueue(max_events=2)
    results = [put(queue, A, 1), put(queue, A, 2), put(queue, A, 1), put(queue, A, 3)]
    assert results == [QUEUED, QUEUED, OVERFLOW, OVERFLOW]
    assert len(queue) == 3
    assert queue.overflowed == 2
    queue.pop()
    assert len(queue) == 2  # with the overflow: still full
    assert put(queue, A, 2) is OVERFLOW
    queue.pop()
    assert put(queue, A, 3) is QUEUED
    assert put(queue, A, 4) is OVERFLOW  # and the first overflow is still queued
    assert [queue.pop(), queue.pop()] == [OverflowEvent(), event(A, 117, 117, 3)]


def test_overflow_can_come_again_when_read() -> None:
    queue = NotificationQueue(max_events=0, make_overflow=lambda: OverflowEvent(pidfd=-1))
    for _ in range(2):
        assert [put(queue, A, 1), put(queue, A, 1)] == [OVERFLOW] * 2
        assert queue.pop() == OverflowEvent(pidfd=-1)
        assert queue.peek() is None
    assert queue.overflowed == 4


def test_unlimited() -> None:
    queue = NotificationQueue(max_events=None)
    for pid in range(20011):
        assert put(queue, A, pid) is QUEUED
    assert len(queue) == 20011


def test_pop_of_an_empty_queue() -> None:
    with pytest.raises(IndexError):
        NotificationQueue().pop()


def test_read_takes_what_fits_whole() -> None:
    queue = NotificationQueue()
    for pid in (1, 2, 3):
        put(queue, A, pid)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        read(queue, 63)
    assert caught.value.errno == errno.EINVAL
    assert len(queue) == 3
    assert read(queue, 64 + 63) == encode(event(A, 117, 117, 1))
    assert read(queue, 4096) == b"".join(encode(event(A, 117, 117, pid)) for pid in (2, 3))
    with pytest.raises(BlockingIOError):
        read(queue, 4096)


def test_what_is_put_back_is_first_again_and_merges() -> None:
    queue = NotificationQueue()
    put(queue, A, 1, 5)
    put(queue, A, 2, 6)
    taken = [queue.take(), queue.take()]
    assert [t.event for t in taken] == [event(A, 5, 5, 1), event(A, 6, 6, 2)]
    assert put(queue, A, 3) is QUEUED
    queue.put_back(taken)
    assert (queue.delivered, len(queue)) == (0, 3)
    assert put(queue, A, 2) is MERGED
    assert [queue.pop() for _ in range(3)] == [
        event(A, 5, 5, 1),
        event(A, 6, 6, 2)._replace(error_count=2),
        event(A, 117, 117, 3),
    ]
    assert (queue.inserted, queue.merged, queue.delivered) == (3, 1, 3)


def test_what_was_queued_meanwhile_joins_what_is_put_back() -> None:
    queue = NotificationQueue(max_events=2)
    put(queue, A, 1, 5)
    taken = queue.take()
    assert put(queue, A, 1, 74) is QUEUED
    queue.put_back([taken])
    assert queue.pop() == event(A, 5, 5, 1)._replace(error_count=2)
    assert (len(queue), queue.inserted, queue.merged, queue.delivered) == (0, 1, 1, 1)


def other(mask: int, pid: int = 1, name: bytes = b"a") -> OtherEvent:
    return OtherEvent(mask, pid, -1, (InfoRecord(2, 0, name),))


def test_other_events_of_one_task_and_object_join_their_masks() -> None:
    queue = NotificationQueue()
    events = [other(0x100), other(0x2, pid=2), other(0x2, name=b"b"), other(0x40000100)]
    assert [queue.insert_other(e) for e in events] == [QUEUED] * 4
    assert queue.insert_other(other(0x8)) is MERGED
    assert [queue.pop() for _ in events] == [other(0x108), *events[1:]]
    assert queue.inserted == 0


def test_a_rename_does_not_merge_with_another_event_of_its_objects() -> None:
    queue = NotificationQueue()
    assert queue.insert_other(other(0x100)) is QUEUED
    assert queue.insert_other(other(0x10000000)) is QUEUED
    assert queue.insert_other(other(0x8)) is MERGED
    assert [queue.pop(), queue.pop()] == [other(0x108), other(0x10000000)]


def test_renames_do_not_merge_and_a_full_queue_overflows_for_all() -> None:
    queue = NotificationQueue(max_events=2)
    assert queue.insert_other(other(0x10000000)) is QUEUED
    assert queue.insert_other(other(0x10000000)) is QUEUED
    assert queue.insert_other(other(0x100)) is OVERFLOW
    assert [queue.pop() for _ in range(3)] == [*[other(0x10000000)] * 2, OverflowEvent()]


def test_the_counts_of_what_joins_are_moved_from_inserted_to_merged() -> None:
    queue = NotificationQueue()
    queue.insert(A, 2, lambda: event(A, 1, 5, 2), 100)
    queue.insert(A, 2, lambda: event(A, 1, 5, 2), 1000)
    queue.insert(A, 1, lambda: event(A, 1, 5, 1), 10)
    taken = [queue.take(), queue.take()]
    queue.insert(A, 1, lambda: event(A, 1, 5, 1), 3)
    queue.insert(A, 1, lambda: event(A, 1, 5, 1), 4)
    assert (queue.inserted, queue.merged) == (3, 1114)
    assert (queue.delivered, queue.delivered_merged) == (2, 1108)
    queue.put_back(taken)
    assert (queue.inserted, queue.merged) == (2, 1115)
    assert (queue.delivered, queue.delivered_merged) == (0, 0)
    counts = [queue.pop() for _ in range(2)]
    assert [e.error_count for e in counts if isinstance(e, FsErrorEvent)] == [1100, 17]


def test_what_joins_after_a_put_back_is_read_with_both_masks() -> None:
    queue = NotificationQueue()
    queue.insert_other(other(0x100))
    taken = queue.take()
    queue.insert_other(other(0x8))
    queue.insert_other(other(0x2, pid=2))
    queue.put_back([taken])
    assert [queue.pop() for _ in range(2)] == [other(0x108), other(0x2, pid=2)]
    assert len(queue) == 0


def test_the_kernels_default() -> None:
    assert (MAX_QUEUED_EVENTS, NotificationQueue().max_events) == (16384, 16384)
