"""The values that travel from the group queue to the outputs.

Names follow ``include/uapi/linux/fanotify.h``. Everything is an immutable tuple:
an event is built once per error and a flood must not cost more than it has to.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fserr_bpf.uapi.dev import Dev


class Fsid(NamedTuple):
    """``__kernel_fsid_t`` as ``statfs(2)`` returns it: two unsigned 32-bit words."""

    val0: int
    val1: int

    def __str__(self) -> str:
        return f"{self.val0:08x}:{self.val1:08x}"


class FileHandle(NamedTuple):
    """``struct file_handle``: type (signed 32 bit) and opaque bytes (0 to 128)."""

    handle_type: int
    f_handle: bytes


class EventId(NamedTuple):
    """What tells a message of a stream from every other one.

    ``boot_id`` is that of ``/proc/sys/kernel/random/boot_id``. ``run`` is when counting began, in
    CLOCK_BOOTTIME nanoseconds, and ``seq`` counts from 1 in the order of the queue.
    """

    boot_id: str
    run: int
    seq: int


class InfoRecord(NamedTuple):
    """An info record that this version does not interpret, kept as it came.

    ``data`` is what follows the four byte header.
    """

    info_type: int
    pad: int
    data: bytes


class Address(NamedTuple):
    """A place in kernel code that means the same on another host.

    ``build_id`` in hexadecimal, ``module`` "" for vmlinux, ``offset`` in bytes from the
    start of ``section``.
    """

    build_id: str
    module: str
    section: str
    offset: int


class PathState(StrEnum):
    """What is known of the path of an event's file, see ``docs/detail.md``."""

    NONE = ""
    EXACT = "exact"
    SEVERAL = "several names"
    STALE = "stale"
    UNKNOWN = "unknown"
    PENDING = "pending"
    NOT_ASKED = "not asked"


class Detail(NamedTuple):
    """What ``--detail`` adds, see ``docs/detail.md``.

    ``kind`` is the name of an ErrorKind. ``pos`` and ``length`` are bytes. ``stack`` are
    kernel addresses, innermost caller first. ``name`` is relative to the root of the file
    system and what the probe read, ``path`` absolute and looked up later. ``cgroup`` is
    that of the ``cgroup_of``: "inode" or "task". ``kernel_device`` is the kernel's own name of
    the device, such as dm-3.
    """

    kind: str
    pos: int = 0
    length: int = 0
    stack: tuple[int, ...] = ()
    name: str = ""
    name_state: str = ""
    path: str = ""
    path_state: str = ""
    cgroup: str = ""
    cgroup_id: int = 0
    cgroup_of: str = ""
    uuid: str = ""
    label: str = ""
    mount_points: tuple[str, ...] = ()
    kernel_device: str = ""


class Origin(NamedTuple):
    """What BPF saw and the fanotify record has no room for.

    ``time_ns`` is CLOCK_REALTIME in nanoseconds. ``dev`` is that of the
    superblock. ``ino`` is 0 where the error has no inode. ``task_start`` is the start of
    the process in CLOCK_MONOTONIC nanoseconds, 0 if it is not known. ``function`` and
    ``line`` are the file system's own; ``failaddr`` is a kernel address or 0.
    ``source`` names the probe, for example ``kprobe:__ext4_error_inode``. ``address`` is
    the portable form of ``failaddr``; it and ``detail`` are None without ``--detail``.
    ``reason`` says in words why a file system has ended, "" if nobody knows or it has not.
    """

    time_ns: int
    dev: Dev
    device: str
    mount_point: str
    fstype: str
    ino: int
    generation: int
    tid: int
    comm: str
    source: str
    function: str = ""
    line: int = 0
    failaddr: int = 0
    block: int = 0
    task_start: int = 0
    address: Address | None = None
    detail: Detail | None = None
    reason: str = ""


class FsErrorEvent(NamedTuple):
    """A FAN_FS_ERROR event: metadata, FID record, ERROR record.

    ``handle`` is None for an error of the superblock, which the kernel writes as
    an empty handle of type FILEID_INVALID. ``error`` is signed 32 bit as the
    kernel stores it, ``error_count`` unsigned 32 bit. ``pidfd`` is None when the
    group did not ask for FAN_REPORT_PIDFD. ``origin`` and ``id`` are never part of the bytes.
    """

    fsid: Fsid
    handle: FileHandle | None
    error: int
    error_count: int
    pid: int
    fd: int = -1
    pidfd: int | None = None
    extra: tuple[InfoRecord, ...] = ()
    origin: Origin | None = None
    id: EventId | None = None


class OverflowEvent(NamedTuple):
    """FAN_Q_OVERFLOW: the queue was full and events are missing from here on."""

    pid: int = 0
    fd: int = -1
    pidfd: int | None = None
    extra: tuple[InfoRecord, ...] = ()
    time_ns: int = 0
    id: EventId | None = None


class OtherEvent(NamedTuple):
    """Any other fanotify event of a mixed group; its info records stay raw."""

    mask: int
    pid: int
    fd: int
    extra: tuple[InfoRecord, ...] = ()
    id: EventId | None = None


class Lost(NamedTuple):
    """Messages that one reader of a stream has not got, for want of room or of success.

    ``first`` and ``last`` are the sequence numbers of the first and the last of them, between which
    nothing was delivered to this reader; ``errors`` is how many errors they stood for. ``time_ns``
    is CLOCK_REALTIME of the first loss. ``id`` is that of ``last``.
    """

    first: int
    last: int
    errors: int
    time_ns: int
    id: EventId | None = None


Event = FsErrorEvent | OverflowEvent | OtherEvent
