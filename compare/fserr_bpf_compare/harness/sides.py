"""Two groups with the same marks, the kernel's and ours, and what each gave to its reader."""

from __future__ import annotations

import errno
import os
import re
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fserr_bpf.closing import Closing
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import KERNEL_LIMIT, Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.fanotify import FAN_EVENT_INFO_TYPE_PIDFD, INFO_HEADER, INFO_PIDFD, METADATA
from fserr_bpf_compare.verdict.cells import Read

READ_SIZE = 65536
DRAIN = 0  # as the size of a read: everything until the queue was empty
_STEP = 0.05  # seconds
_MAX_QUEUED_EVENTS = Path("/proc/sys/fs/fanotify/max_queued_events")


class Sides(Closing):
    """The groups and their transcripts, ``real`` and ``emulated``.

    Raises FserrError subclasses as `FanotifyGroup` and `Monitor` do.
    """

    def __init__(
        self,
        attached: AttachedProbes,
        stream: Stream,
        marks: Sequence[Mark],
        *,
        flags: int,
        max_events: int | None,
    ) -> None:
        self.real: list[Read] = []
        self.emulated: list[Read] = []
        limit = KERNEL_LIMIT if max_events is None else max_events
        with ExitStack() as stack:
            with _queue_limit(max_events):  # a group takes it over when it is made
                self._group = stack.enter_context(FanotifyGroup(flags))
            self.monitor = stack.enter_context(
                Monitor(
                    marks,
                    stream,
                    max_events=limit,
                    flags=flags,
                    attached=attached,
                )
            )
            for mark in marks:
                (self._group.mark if mark.whole else self._group.mark_inode)(mark.path)
            self._closing = stack.pop_all()

    def close(self) -> None:
        """Close both groups."""
        self._closing.close()

    def read(self, size: int) -> None:
        """One read(2) of ``size`` bytes on either side."""
        self.real.append(_read(self._read_real, size))
        self.emulated.append(_read(self._read_emulated, size))

    def drain(self) -> None:
        """Read both until they are empty, as one entry of each transcript."""
        self.real.append(Read(DRAIN, _all(self._read_real)))
        self.emulated.append(Read(DRAIN, _all(self._read_emulated)))

    def drain_until(self, done: Callable[[], bool], timeout: float) -> None:
        """Add what comes late to the last entries, until ``done`` or for ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._group.fileno(), select.POLLIN)
        poll.register(self.monitor.fileno(), select.POLLIN)
        while not done() and (left := deadline - time.monotonic()) > 0:
            poll.poll(min(left, _STEP) * 1000)
            for reads, read in (
                (self.real, self._read_real),
                (self.emulated, self._read_emulated),
            ):
                late = _all(read)
                reads[-1] = reads[-1]._replace(data=reads[-1].data + late)

    def pump(self) -> None:
        """Let our queue take what is in the ring, as the kernel's has it already."""
        self.monitor.pump()

    def _read_real(self, size: int) -> bytes:
        return _with_pids(self._group.read(size))

    def _read_emulated(self, size: int) -> bytes:
        return _with_pids(self.monitor.read(size))


def _read(read: Callable[[int], bytes], size: int) -> Read:
    try:
        data = read(size)
    except OSError as error:
        return Read(size, b"", error.errno or 0)
    return Read(size, data, 0 if data else errno.EAGAIN)


def _all(read: Callable[[int], bytes]) -> bytes:
    return b"".join(iter(lambda: read(READ_SIZE), b""))


@contextmanager
def _queue_limit(max_events: int | None) -> Iterator[None]:
    if max_events is None:
        yield
        return
    before = _MAX_QUEUED_EVENTS.read_text()
    _MAX_QUEUED_EVENTS.write_text(f"{max_events}\n")
    try:
        yield
    finally:
        _MAX_QUEUED_EVENTS.write_text(before)


def _with_pids(data: bytes) -> bytes:
    """Close every pidfd in ``data`` and put the pid in its place that it points to.

    Two readers in one process cannot have the same descriptor; what both must have is
    a descriptor of the same process.
    """
    changed = bytearray(data)
    event = 0
    while event < len(changed):
        length, _, _, metadata_len, *_ = METADATA.unpack_from(changed, event)
        info, end = event + metadata_len, event + length
        while info < end:
            info_type, _, info_len = INFO_HEADER.unpack_from(changed, info)
            if info_type == FAN_EVENT_INFO_TYPE_PIDFD:
                *header, pidfd = INFO_PIDFD.unpack_from(changed, info)
                if pidfd >= 0:
                    INFO_PIDFD.pack_into(changed, info, *header, _pid_of(pidfd))
            info += info_len
        event = end
    return bytes(changed)


def _pid_of(pidfd: int) -> int:
    words = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    os.close(pidfd)
    found = re.search(r"^Pid:\s*(-?\d+)", words, re.MULTILINE)
    return int(found[1]) if found else 0
