"""fanotify events <-> the bytes that ``read(2)`` on a group gives, both directions.

The canonical order is that of ``copy_info_records_to_user()`` in
``fs/notify/fanotify/fanotify_user.c``: metadata, FID, PIDFD, ERROR; whatever this
version does not interpret comes last. Decoding has two paths with one result: a short
one for canonical FAN_FS_ERROR events, which checks all lengths by a table look-up, and
a long one that walks any event's info records in any order and says what is wrong.

A record or metadata longer than known here comes from a later kernel: the known part
is read and the rest is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from struct import error as StructError

from fserr_bpf.codec.info import (
    ALIGNMENT,
    MAX_EVENT_LEN,
    Bytes,
    Located,
    bad_field,
    info_records,
    pack_records,
)
from fserr_bpf.errors import DecodeError
from fserr_bpf.model.event import (
    Event,
    FileHandle,
    FsErrorEvent,
    Fsid,
    InfoRecord,
    OtherEvent,
    OverflowEvent,
)
from fserr_bpf.uapi.exportfs import FILE_HANDLE, FILEID_INVALID, MAX_HANDLE_SZ
from fserr_bpf.uapi.fanotify import (
    FAN_EVENT_INFO_TYPE_ERROR,
    FAN_EVENT_INFO_TYPE_FID,
    FAN_EVENT_INFO_TYPE_PIDFD,
    FAN_FS_ERROR,
    FAN_Q_OVERFLOW,
    FANOTIFY_METADATA_VERSION,
    INFO_ERROR,
    INFO_FID,
    INFO_PIDFD,
    METADATA,
)

_FID_SIZE = INFO_FID.size + FILE_HANDLE.size

FS_ERROR_TYPES = {
    FAN_EVENT_INFO_TYPE_FID: ("FID", _FID_SIZE),
    FAN_EVENT_INFO_TYPE_PIDFD: ("PIDFD", INFO_PIDFD.size),
    FAN_EVENT_INFO_TYPE_ERROR: ("ERROR", INFO_ERROR.size),
}
"""Info types that a FAN_FS_ERROR event has fields for: name and least length."""

OVERFLOW_TYPES = {FAN_EVENT_INFO_TYPE_PIDFD: ("PIDFD", INFO_PIDFD.size)}
"""The same for FAN_Q_OVERFLOW."""


def _word(low: int, length: int) -> int:
    """``{u8 low; u8 zero; u16 length}`` read as one little endian word."""
    return length << 16 | low


_VERSION = _word(FANOTIFY_METADATA_VERSION, METADATA.size)
_PIDFD = _word(FAN_EVENT_INFO_TYPE_PIDFD, INFO_PIDFD.size)
_ERROR = _word(FAN_EVENT_INFO_TYPE_ERROR, INFO_ERROR.size)

# A canonical event up to its handle, runs of constant small fields read as words:
# event_len, _VERSION, mask, fd, pid, FID header, fsid, handle_bytes, handle_type.
_HEAD = Struct("<IIQiiIIIIi")


class _Shape:
    """A canonical FAN_FS_ERROR event with a file handle of ``handle_bytes`` bytes."""

    __slots__ = ("event_len", "fid", "tail", "whole")

    def __init__(self, handle_bytes: int, *, pidfd: bool) -> None:
        padding = -handle_bytes % ALIGNMENT
        tail = f"{handle_bytes}s{padding}x" + ("Ii" if pidfd else "") + "IiI"
        self.tail = Struct("<" + tail)
        self.whole = Struct(_HEAD.format + tail)
        self.event_len = self.whole.size
        self.fid = _word(FAN_EVENT_INFO_TYPE_FID, _FID_SIZE + handle_bytes + padding)


_PLAIN = [_Shape(length, pidfd=False) for length in range(MAX_HANDLE_SZ + 1)]
_WITH_PIDFD = [_Shape(length, pidfd=True) for length in range(MAX_HANDLE_SZ + 1)]
_PLAIN_TAILS = {(s.event_len, s.fid, n): s.tail for n, s in enumerate(_PLAIN)}
_PIDFD_TAILS = {(s.event_len, s.fid, n): s.tail for n, s in enumerate(_WITH_PIDFD)}


def encode(event: Event) -> bytes:
    """Return ``event`` as the kernel would write it; ``origin`` and times are left out.

    Raises ValueError for an event that no bytes can say: a number out of range, a
    handle above MAX_HANDLE_SZ, extra records of an interpreted type or without room.
    """
    try:
        if isinstance(event, FsErrorEvent):
            return _encode_fs_error(event)
        if isinstance(event, OverflowEvent):
            known = b""
            if event.pidfd is not None:
                known = INFO_PIDFD.pack(FAN_EVENT_INFO_TYPE_PIDFD, 0, INFO_PIDFD.size, event.pidfd)
            room = MAX_EVENT_LEN - METADATA.size - len(known)
            info = known + pack_records(event.extra, OVERFLOW_TYPES, room)
            return _metadata(len(info), FAN_Q_OVERFLOW, event.fd, event.pid) + info
        if event.mask in (FAN_FS_ERROR, FAN_Q_OVERFLOW):
            raise ValueError(f"mask {event.mask:#x} has an event type of its own")
        info = pack_records(event.extra, (), MAX_EVENT_LEN - METADATA.size)
        return _metadata(len(info), event.mask, event.fd, event.pid) + info
    except StructError as error:
        raise ValueError(f"a field of the event is out of range: {error}") from error


def _metadata(info_len: int, mask: int, fd: int, pid: int) -> bytes:
    event_len = METADATA.size + info_len
    return METADATA.pack(event_len, FANOTIFY_METADATA_VERSION, 0, METADATA.size, mask, fd, pid)


def _encode_fs_error(event: FsErrorEvent) -> bytes:
    (val0, val1), handle, error, error_count, pid, fd, pidfd, extra, *_ = event
    handle_type, f_handle = (FILEID_INVALID, b"") if handle is None else handle
    length = len(f_handle)
    if length > MAX_HANDLE_SZ:
        raise ValueError(f"file handle of {length} bytes, more than {MAX_HANDLE_SZ}")
    shape = (_PLAIN if pidfd is None else _WITH_PIDFD)[length]
    event_len = shape.event_len
    more = b""
    if extra:
        more = pack_records(extra, FS_ERROR_TYPES, MAX_EVENT_LEN - event_len)
        event_len += len(more)
    head = (event_len, _VERSION, FAN_FS_ERROR, fd, pid, shape.fid, val0, val1, length, handle_type)
    if pidfd is None:
        return shape.whole.pack(*head, f_handle, _ERROR, error, error_count) + more
    return shape.whole.pack(*head, f_handle, _PIDFD, pidfd, _ERROR, error, error_count) + more


def decode(data: Bytes, offset: int = 0) -> tuple[Event, int]:
    """Return the event at ``offset`` of ``data`` and the offset behind it.

    Raises DecodeError when there is no whole and valid event.
    """
    taken = _take(data, offset, 0)
    if taken is None:
        raise _partial(data, offset, 0)
    return taken


class Decoder:
    """Events from a stream that arrives in pieces of any size.

    Offsets in errors count from the first byte ever fed. An error is final: the bad
    event stays in front and every later iteration raises it again.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._base = 0
        self._used = 0

    @property
    def offset(self) -> int:
        """Bytes of the stream up to the end of the event that was yielded last."""
        return self._base + self._used

    def feed(self, data: Bytes) -> Iterator[Event]:
        """Take ``data`` in at once; iterate to get the events that are now whole.

        The iterator raises DecodeError when it reaches a bad event, after it has
        yielded all the good ones before it.
        """
        del self._buffer[: self._used]
        self._base += self._used
        self._used = 0
        self._buffer += data
        return self._events()

    def _events(self) -> Iterator[Event]:
        while (taken := _take(self._buffer, self._used, self._base)) is not None:
            event, self._used = taken
            yield event

    def close(self) -> None:
        """The stream has ended; raise DecodeError if it did so within an event."""
        if self._used < len(self._buffer):
            raise _partial(self._buffer, self._used, self._base)


def _partial(data: Bytes, offset: int, base: int) -> DecodeError:
    there = len(data) - offset
    if there < METADATA.size:
        wanted = f"at least {METADATA.size}"
    else:
        wanted = str(METADATA.unpack_from(data, offset)[0])
    return DecodeError(base + offset, f"the data end after {there} of {wanted} bytes of an event")


def _take(data: Bytes, offset: int, base: int) -> tuple[Event, int] | None:
    """The event at ``data[offset]`` and the offset behind it; None if more must come."""
    available = len(data) - offset
    if available >= _HEAD.size:
        event_len, version, mask, fd, pid, fid, val0, val1, length, handle_type = _HEAD.unpack_from(
            data, offset
        )
        if mask == FAN_FS_ERROR and version == _VERSION and event_len <= available:
            handle = None
            shape = (event_len, fid, length)
            if (tail := _PLAIN_TAILS.get(shape)) is not None:
                f_handle, error_head, error, count = tail.unpack_from(data, offset + _HEAD.size)
                if error_head == _ERROR:
                    if length or handle_type != FILEID_INVALID:
                        handle = FileHandle(handle_type, f_handle)
                    event = FsErrorEvent(Fsid(val0, val1), handle, error, count, pid, fd)
                    return event, offset + event_len
            elif (tail := _PIDFD_TAILS.get(shape)) is not None:
                f_handle, pidfd_head, pidfd, error_head, error, count = tail.unpack_from(
                    data, offset + _HEAD.size
                )
                if pidfd_head == _PIDFD and error_head == _ERROR:
                    if length or handle_type != FILEID_INVALID:
                        handle = FileHandle(handle_type, f_handle)
                    event = FsErrorEvent(Fsid(val0, val1), handle, error, count, pid, fd, pidfd)
                    return event, offset + event_len
    if available < METADATA.size:
        return None
    return _take_any(data, offset, base)


def _take_any(data: Bytes, offset: int, base: int) -> tuple[Event, int] | None:
    """The long way of ``_take``, for every event and every mistake."""
    event_len, version, _, metadata_len, mask, fd, pid = METADATA.unpack_from(data, offset)
    at = base + offset
    if not METADATA.size <= event_len <= MAX_EVENT_LEN:
        why = f"not between {METADATA.size} and {MAX_EVENT_LEN}"
        raise bad_field(at, "event_len", at, event_len, why)
    if event_len % ALIGNMENT:
        raise bad_field(at, "event_len", at, event_len, "not a multiple of 4")
    if version != FANOTIFY_METADATA_VERSION:
        raise bad_field(at, "vers", at + 4, version, f"not {FANOTIFY_METADATA_VERSION}")
    if not METADATA.size <= metadata_len <= event_len:
        why = f"not between {METADATA.size} and event_len {event_len}"
        raise bad_field(at, "metadata_len", at + 6, metadata_len, why)
    if metadata_len % ALIGNMENT:
        raise bad_field(at, "metadata_len", at + 6, metadata_len, "not a multiple of 4")
    end = offset + event_len
    if end > len(data):
        return None
    records = info_records(data, offset + metadata_len, end, at, base)
    if mask == FAN_FS_ERROR:
        return _fs_error(at, fd, pid, records), end
    if mask == FAN_Q_OVERFLOW:
        known, extra = _sort(at, records, OVERFLOW_TYPES)
        return OverflowEvent(pid, fd, _pidfd(known), extra), end
    return OtherEvent(mask, pid, fd, tuple(located.record for located in records)), end


def _fs_error(at: int, fd: int, pid: int, records: Iterator[Located]) -> FsErrorEvent:
    known, extra = _sort(at, records, FS_ERROR_TYPES)
    for info_type in (FAN_EVENT_INFO_TYPE_FID, FAN_EVENT_INFO_TYPE_ERROR):
        if info_type not in known:
            name, _ = FS_ERROR_TYPES[info_type]
            raise DecodeError(at, f"FAN_FS_ERROR event without a record {name} ({info_type})")
    fsid, handle = _fid(at, known[FAN_EVENT_INFO_TYPE_FID])
    _, _, _, error, error_count = INFO_ERROR.unpack_from(known[FAN_EVENT_INFO_TYPE_ERROR].whole)
    return FsErrorEvent(fsid, handle, error, error_count, pid, fd, _pidfd(known), extra)


def _sort(
    at: int, records: Iterator[Located], types: dict[int, tuple[str, int]]
) -> tuple[dict[int, Located], tuple[InfoRecord, ...]]:
    """Split into the records in ``types``, each at most once and long enough, and the rest."""
    known: dict[int, Located] = {}
    extra = []
    for located in records:
        info_type = located.record.info_type
        if info_type not in types:
            extra.append(located.record)
            continue
        name, least = types[info_type]
        if info_type in known:
            raise bad_field(at, "info_type", located.at, info_type, f"a second record {name}")
        if len(located.whole) < least:
            why = f"less than the {least} of a record {name}"
            raise bad_field(at, "info len", located.at + 2, len(located.whole), why)
        known[info_type] = located
    return known, tuple(extra)


def _pidfd(known: dict[int, Located]) -> int | None:
    if FAN_EVENT_INFO_TYPE_PIDFD not in known:
        return None
    _, _, _, pidfd = INFO_PIDFD.unpack_from(known[FAN_EVENT_INFO_TYPE_PIDFD].whole)
    return int(pidfd)


def _fid(at: int, located: Located) -> tuple[Fsid, FileHandle | None]:
    """The two halves of a FID record; ``copy_fid_info_to_user()`` writes it."""
    whole = located.whole
    _, _, _, val0, val1 = INFO_FID.unpack_from(whole)
    length, handle_type = FILE_HANDLE.unpack_from(whole, INFO_FID.size)
    length_at = located.at + INFO_FID.size
    if length > MAX_HANDLE_SZ:
        raise bad_field(at, "handle_bytes", length_at, length, f"more than {MAX_HANDLE_SZ}")
    if length > len(whole) - _FID_SIZE:
        why = f"more than the {len(whole) - _FID_SIZE} bytes left in the record"
        raise bad_field(at, "handle_bytes", length_at, length, why)
    if not length and handle_type == FILEID_INVALID:
        return Fsid(val0, val1), None
    return Fsid(val0, val1), FileHandle(handle_type, whole[_FID_SIZE : _FID_SIZE + length])
