"""Hypothesis strategies for every value of ``fserr_bpf.model.event`` and ``Record``."""

from __future__ import annotations

from hypothesis import strategies as st

from fserr_bpf.model.event import (
    Address,
    Detail,
    Event,
    EventId,
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    Lost,
    Origin,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.model.state import (
    Condition,
    DeviceErrors,
    FilesystemState,
    RecordedError,
    StateChange,
)
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.record import Record

FID, PIDFD, ERROR = 1, 4, 5
Q_OVERFLOW, FS_ERROR = 0x4000, 0x8000


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


fsids = st.builds(Fsid, unsigned(32), unsigned(32))

handles: st.SearchStrategy[FileHandle] = st.builds(
    FileHandle, signed(32), st.binary(max_size=128)
).filter(lambda handle: handle != FileHandle(0xFF, b""))  # those bytes mean None


def info_records(*not_types: int) -> st.SearchStrategy[tuple[InfoRecord, ...]]:
    aligned = st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4])
    types = unsigned(8).filter(lambda number: number not in not_types)
    return st.lists(st.builds(InfoRecord, types, unsigned(8), aligned), max_size=4).map(tuple)


names = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
"""Text as the kernel gives it: any bytes, what is not UTF-8 as lone surrogates."""

addresses = st.builds(Address, build_id=names, module=names, section=names, offset=unsigned(64))

sides = st.builds(
    Detail,
    kind=names,
    pos=unsigned(64),
    length=unsigned(64),
    stack=st.lists(unsigned(64), max_size=3).map(tuple),
    name=names,
    name_state=names,
    path=names,
    path_state=names,
    cgroup=names,
    cgroup_id=unsigned(64),
    cgroup_of=names,
    uuid=names,
    label=names,
    mount_points=st.lists(names, max_size=2).map(tuple),
)

origins = st.builds(
    Origin,
    time_ns=signed(64),
    dev=st.tuples(unsigned(12), unsigned(20)),
    device=names,
    mount_point=names,
    fstype=names,
    ino=unsigned(64),
    generation=unsigned(32),
    tid=signed(32),
    comm=names,
    source=names,
    function=names,
    line=unsigned(32),
    failaddr=unsigned(64),
    block=unsigned(64),
    task_start=unsigned(64),
    address=st.none() | addresses,
    detail=st.none() | sides,
    reason=names,
)

fs_error_events = st.builds(
    FsErrorEvent,
    fsid=fsids,
    handle=st.none() | handles,
    error=signed(32),
    error_count=unsigned(32),
    pid=signed(32),
    fd=signed(32),
    pidfd=st.none() | signed(32),
    extra=info_records(FID, PIDFD, ERROR),
    origin=st.none() | origins,
    id=st.none(),
)

overflow_events = st.builds(
    OverflowEvent,
    pid=signed(32),
    fd=signed(32),
    pidfd=st.none() | signed(32),
    extra=info_records(PIDFD),
    time_ns=signed(64),
    id=st.none(),
)

other_events = st.builds(
    OtherEvent,
    mask=unsigned(64).filter(lambda mask: mask not in (Q_OVERFLOW, FS_ERROR)),
    pid=signed(32),
    fd=signed(32),
    extra=info_records(),
    id=st.none(),
)

events: st.SearchStrategy[Event] = st.one_of(fs_error_events, overflow_events, other_events)


event_ids = st.builds(EventId, boot_id=names, run=unsigned(64), seq=st.integers(1, 2**64 - 1))


@st.composite
def numbered_events(draw: st.DrawFn) -> Event:
    """Events as a stream of JSON has them."""
    return draw(events)._replace(id=draw(st.none() | event_ids))


def on_the_wire(event: Event) -> Event:
    """``event`` without what fanotify bytes have no room for."""
    if isinstance(event, FsErrorEvent):
        return event._replace(origin=None)
    if isinstance(event, OverflowEvent):
        return event._replace(time_ns=0)
    return event


records: st.SearchStrategy[Record] = st.builds(
    Record,
    version=st.just(1),
    probe=unsigned(8),
    size=st.just(176),
    flags=unsigned(32),
    time_ns=unsigned(64),
    dev=unsigned(32),
    magic=unsigned(32),
    sb_flags=unsigned(32),
    error=signed(32),
    ino=unsigned(64),
    generation=unsigned(32),
    line=unsigned(32),
    subvolume=unsigned(64),
    block=unsigned(64),
    length=unsigned(64),
    failaddr=unsigned(64),
    tgid=unsigned(32),
    tid=unsigned(32),
    task_start=unsigned(64),
    own_tgid=unsigned(32),
    own_tid=unsigned(32),
    pid_namespace=unsigned(32),
    pid_level=unsigned(32),
    comm=st.binary(min_size=16, max_size=16),
    function=st.binary(min_size=48, max_size=48),
)

plain_values: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | signed(64)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
"""Any value that msgpack can carry."""


_recorded = st.builds(
    RecordedError,
    time=st.integers(0, 2**36),
    function=names,
    line=unsigned(32),
    error=st.integers(0, 2**31 - 1),
    ino=unsigned(64),
    block=unsigned(64),
)
_name_lists = st.lists(names, max_size=3).map(tuple)
_devices = st.builds(DeviceErrors, names, *(unsigned(62) for _ in range(5)))

state_changes = st.builds(
    StateChange,
    time_ns=signed(64),
    state=st.builds(
        FilesystemState,
        dev=st.builds(Dev, unsigned(32), unsigned(32)),
        device=names,
        mapper=names,
        below=_name_lists,
        fstype=names,
        mount_points=_name_lists,
        hidden=st.booleans(),
        condition=st.sampled_from(Condition),
        errors=unsigned(64),
        first=st.none() | _recorded,
        last=st.none() | _recorded,
        devices=st.lists(_devices, max_size=2).map(tuple),
        sick=_name_lists,
        reason=names,
    ),
    before=st.none() | st.sampled_from(Condition),
    not_seen=_name_lists,
    id=st.none() | event_ids,
)

losses = st.builds(
    Lost,
    first=st.integers(1, 2**64 - 1),
    last=st.integers(1, 2**64 - 1),
    errors=unsigned(64),
    time_ns=signed(64).map(lambda ns: ns % (1 << 61)),
    id=st.none() | event_ids,
)
