"""What only the proposal has: details of errors, and marks on inodes."""

from __future__ import annotations

import errno
import os
import re

import pytest

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.codec.proposed import (
    DetailedError,
    ErrorLocation,
    read_detailed_error,
    read_error_location,
)
from fserr_bpf.errors import MarkError, UsageError
from fserr_bpf.group.statistics import DropReason
from fserr_bpf.kernel.kallsyms import Kallsyms
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.proposed import (
    FAN_REPORT_DETAILED_ERROR,
    FAN_REPORT_ERROR_LOCATION,
    ErrorKind,
)
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults.cutting import cut, last_victim, write_victims
from fserr_bpf_compare.faults.fault import run_child
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import BY_NAME, KernelLog, kernel_version, skip, wait_until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
BOTH = FAN_REPORT_DETAILED_ERROR | FAN_REPORT_ERROR_LOCATION


def events_of(monitor: Monitor, wanted: int) -> list[FsErrorEvent]:
    """What read(2) gives, decoded, once ``wanted`` errors are there."""
    decoder = Decoder()
    events: list[FsErrorEvent] = []

    def enough() -> bool:
        for event in decoder.feed(monitor.read()):
            assert isinstance(event, FsErrorEvent)
            events.append(event)
        return sum(event.error_count for event in events) >= wanted

    wait_until(enough, f"{wanted} errors")
    return events


def details_in(event: FsErrorEvent) -> tuple[DetailedError, ErrorLocation]:
    detail, location = event.extra
    details, place = read_detailed_error(detail), read_error_location(location)
    assert details is not None
    assert place is not None
    return details, place


def test_details_of_a_bad_buffer_are_those_of_the_kernel_log(attached: AttachedProbes) -> None:
    if kernel_version() == (5, 10) and Probe.XFS_BUF_VERIFIER in attached.failed:
        skip(f"no function: {attached.failed[Probe.XFS_BUF_VERIFIER]}", expected=True)
    fault = BY_NAME["xfs_dirblock"]
    with scratch("xfs") as fs, KernelLog() as log:
        fault.prepare(fs)
        marks = [Mark.filesystem(str(fs.mount_point))]
        with Monitor(marks, attached=attached, flags=BOTH) as monitor, Kallsyms() as names:
            fault.cause(fs)
            (event,) = events_of(monitor, 1)
            detail, location = details_in(event)
            function = names.function(detail.failaddr)
        pattern = r"CRC error detected at ([\w.]+)\+.*, (\w+) block (0x[0-9a-f]+)"
        log.wait_for(pattern)
        said = next(filter(None, (re.search(pattern, line) for line in log.messages())))
    assert (detail.kind, detail.pos, detail.length) == (ErrorKind.METADATA, 0, 4096)
    assert (function, location, detail.block) == (
        said[1],
        ErrorLocation(said[2], 0),
        int(said[3], 16),
    )


def test_the_bytes_without_the_flags_are_upstreams(attached: AttachedProbes) -> None:
    fault = BY_NAME["xfs_dirblock"]
    with scratch("xfs") as fs:
        fault.prepare(fs)
        with Monitor([Mark.filesystem(str(fs.mount_point))], attached=attached) as monitor:
            fault.cause(fs)
            (event,) = events_of(monitor, 1)
    assert event.extra == ()


def test_details_are_the_proposed_streams_own() -> None:
    with pytest.raises(UsageError, match="stream native has no details"):
        Monitor([Mark.filesystem("/")], Stream.NATIVE, flags=FAN_REPORT_DETAILED_ERROR)


def test_inode_mark_hears_its_file_only(attached: AttachedProbes) -> None:
    """A database and the writeback errors of its own files."""
    with scratch("xfs") as fs:
        write_victims(fs)
        path, root = last_victim(fs), str(fs.mount_point)
        other = f"{root}/group0/victim"
        assert other != path

        def fail(*marks: Mark) -> Monitor:
            monitor = Monitor(marks, attached=attached)
            with cut(fs, path):
                dd = ("dd", "if=/dev/zero", f"of={path}", "bs=64k", "count=1")
                assert run_child(*dd, "conv=notrunc,fsync", path=path).returncode == 1
            return monitor

        for marks in ((Mark.inode(path),), (Mark.inode(path), Mark.filesystem(other))):
            with fail(*marks) as monitor:
                (event,) = events_of(monitor, 1)
                assert event.error == errno.EIO
                assert event.handle is not None
                assert int.from_bytes(event.handle.f_handle[:8], "little") == os.stat(path).st_ino
        with fail(Mark.inode(other), Mark.inode(root)) as monitor:
            monitor.pump()
            assert len(monitor) == 0
            assert monitor.statistics().dropped[DropReason.NOT_MARKED] > 0


def test_inode_mark_where_there_are_no_handles() -> None:
    with pytest.raises(MarkError, match="/proc/self/status: "):
        Monitor([Mark.inode("/proc/self/status")])
