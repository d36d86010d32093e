"""A whole device fails: metadata, journal, log and data, beside a real group."""

from __future__ import annotations

import errno

import pytest

from compare.faults.fault import Expected
from compare.mapper import DEVICE_FAULTS, DeviceFault, available, mapped
from compare.scratch import scratch
from fserr_bpf.live.armed import Armed
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from tests.live.conftest import KernelLog, kernel_version, skip, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.kprobes,
    pytest.mark.usefixtures("scratch_space", "device_mapper"),
]


@pytest.fixture(scope="module")
def device_mapper() -> None:
    if not available():
        skip("this kernel has no device-mapper; test_in_lab.py runs it on some", expected=True)


@pytest.mark.parametrize("fault", DEVICE_FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("stream", [Stream.PROPOSED, Stream.FSERROR])
def test_stream_has_what_the_table_promises(
    stream: Stream, fault: DeviceFault, armed: Armed
) -> None:
    proposed = stream is Stream.PROPOSED
    expected = set(fault.proposed if proposed else fault.fserror)
    if fault.name == "xfs_device_log" and proposed and kernel_version() == (5, 10):
        # Debian's XFS of that kernel has no type information: that it has been shut down,
        # and so fails every buffer, cannot be seen.
        expected.add(Expected(errno.EIO, "sb"))
    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        with (
            mapped(fs) as mapper,
            KernelLog() as log,
            Monitor([Mark.filesystem(str(fs.mount_point))], stream, armed=armed) as monitor,
        ):
            fault.cause(fs, mapper)
            if fault.fstype == "xfs":
                log.wait_for(rf"XFS \({fs.device_name}\): .*I/O error")
            seen: set[Expected] = set()

            def complete() -> bool:
                events = [e for e in monitor.read_events() if isinstance(e, FsErrorEvent)]
                seen.update(Expected(e.error, "inode" if e.handle else "sb") for e in events)
                return seen >= expected

            wait_until(complete, f"{expected} in {stream}")
            assert seen == expected
