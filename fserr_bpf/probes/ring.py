"""The monitor's side of the ring buffer: libbpf owns the positions, we copy bytes.

Python has no acquire load, so the ring's positions stay libbpf's business. The
callback does nothing but copy: an exception inside a ctypes callback is lost.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Collection
from struct import Struct

from fserr_bpf.errors import KernelError
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.uapi.record import FSERR_MARKS_ALL, FSERR_MARKS_MAX, FSERR_PROBE_MAX, MARKS

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_ROUND = 4096  # a flood must not keep libbpf in its loop for ever
_COUNT = Struct("<I")
_COUNTERS = Struct(f"<{FSERR_PROBE_MAX}Q")


class Ring:
    """A BPF_MAP_TYPE_RINGBUF being read, with the counters of what did not fit.

    Also tells the probes which devices are marked. Maps what the descriptors are, which
    need not stay open. ``fileno()`` is readable while records wait.
    """

    def __init__(self, ring_fd: int, lost_fd: int, marks_fd: int) -> None:
        self._library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name, result, arguments in (
            (
                "ring_buffer__new",
                ctypes.c_void_p,
                [ctypes.c_int, _CALLBACK] + [ctypes.c_void_p] * 2,
            ),
            ("ring_buffer__epoll_fd", ctypes.c_int, [ctypes.c_void_p]),
            ("ring_buffer__consume", ctypes.c_int, [ctypes.c_void_p]),
            ("ring_buffer__free", None, [ctypes.c_void_p]),
        ):
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._records: list[bytes] = []
        records = self._records
        append, copy = records.append, ctypes.string_at

        def callback(_context: int, data: int, size: int) -> int:
            append(copy(data, size))
            # a negative value ends this round, with the record consumed
            return -1 if len(records) >= _ROUND else 0

        self._callback = _CALLBACK(callback)  # must outlive the ring
        self._counters = mmap.mmap(lost_fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        self._marks = mmap.mmap(marks_fd, mmap.PAGESIZE, mmap.MAP_SHARED)
        # libbpf waits on the descriptor; once it is closed, the mapping keeps what it was of
        self._ring = self._library.ring_buffer__new(ring_fd, self._callback, None, None)
        if not self._ring:
            code = ctypes.get_errno()
            cause = f"cannot map the ring buffer ({os.strerror(code)})"
            raise KernelError(cause, "free memory, then start fserr-bpf again")

    def fileno(self) -> int:
        """A descriptor that polls readable while records wait."""
        fd: int = self._library.ring_buffer__epoll_fd(self._ring)
        return fd

    def drain(self) -> list[bytes]:
        """The records that wait, oldest first, 4096 at most; empty when there are none."""
        self._library.ring_buffer__consume(self._ring)
        records = self._records[:]
        self._records.clear()
        return records

    def lost(self) -> tuple[int, ...]:
        """Reports that found the ring full so far, by probe number."""
        return _COUNTERS.unpack_from(self._counters)

    def mark(self, devices: Collection[Dev]) -> None:
        """Let reports of these superblocks into the ring, and of no others."""
        if len(devices) > FSERR_MARKS_MAX:
            _COUNT.pack_into(self._marks, 0, FSERR_MARKS_ALL)
            return
        padding = [0] * (FSERR_MARKS_MAX - len(devices))
        _COUNT.pack_into(self._marks, 0, FSERR_MARKS_ALL)  # while the table is rewritten
        MARKS.pack_into(self._marks, 0, FSERR_MARKS_ALL, *(dev.number for dev in devices), *padding)
        _COUNT.pack_into(self._marks, 0, len(devices))

    def close(self) -> None:
        """Unmap; the probes' own descriptors are not the ring's."""
        if self._ring:
            self._library.ring_buffer__free(self._ring)
            self._ring = None
            self._counters.close()
            self._marks.close()
