"""Runs of ring entries: nothing is lost by taking neighbours together."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fserr_bpf.codec.record import decode_record, runs
from fserr_bpf.model.event import FsErrorEvent, Fsid
from fserr_bpf.model.queue import NotificationQueue
from fserr_bpf.uapi.record import FSERR_VERSION, RECORD, Record
from tests.ring_values import record_bytes

_FSID = Fsid(1, 2)

# few different errors, so that neighbours are often alike
_RECORDS = st.builds(
    Record,
    version=st.just(FSERR_VERSION),
    probe=st.sampled_from((2, 15)),
    size=st.just(RECORD.size),
    flags=st.just(0),
    time_ns=st.integers(0, 2**64 - 1),
    dev=st.just(7 << 20),
    magic=st.just(0xEF53),
    sb_flags=st.just(0),
    error=st.sampled_from((5, 117)),
    ino=st.just(12),
    generation=st.just(0),
    line=st.just(0),
    subvolume=st.just(0),
    block=st.just(0),
    length=st.just(0),
    failaddr=st.just(0),
    tgid=st.sampled_from((100, 101)),
    tid=st.just(100),
    task_start=st.just(1),
    own_tgid=st.just(0),
    own_tid=st.just(0),
    pid_namespace=st.just(0),
    pid_level=st.just(0),
    comm=st.just(b"dd".ljust(16, b"\0")),
    function=st.sampled_from((bytes(48), b"x" * 48)),
)
_ENTRIES = st.lists(st.builds(record_bytes, _RECORDS))


@given(_ENTRIES)
def test_runs_are_the_entries_in_order(entries: list[bytes]) -> None:
    assert [entry for same in runs(entries) for entry in same] == entries


@given(_ENTRIES)
def test_a_run_differs_in_time_only_and_is_as_long_as_it_can_be(entries: list[bytes]) -> None:
    alike = [{decode_record(entry)._replace(time_ns=0) for entry in same} for same in runs(entries)]
    assert all(len(records) == 1 for records in alike)
    assert all(one != other for one, other in itertools.pairwise(alike))


@given(_ENTRIES, st.integers(1, 4))
def test_a_queue_ends_the_same_by_runs_and_one_by_one(entries: list[bytes], limit: int) -> None:
    by_runs, singly = NotificationQueue(limit), NotificationQueue(limit)
    for same in runs(entries):
        _insert(by_runs, same[0], 1)
        if len(same) > 1:
            _insert(by_runs, same[0], len(same) - 1)
    for entry in entries:
        _insert(singly, entry, 1)
    for counter in ("inserted", "merged", "overflowed"):
        assert getattr(by_runs, counter) == getattr(singly, counter)
    assert len(by_runs) == len(singly)
    while len(singly):
        assert by_runs.pop() == singly.pop()


def _insert(queue: NotificationQueue, entry: bytes, count: int) -> None:
    record = decode_record(entry)
    event = FsErrorEvent(_FSID, None, record.error, 1, record.tgid)
    queue.insert(_FSID, record.tgid, lambda: event, count)
