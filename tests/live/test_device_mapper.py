"""A whole device fails: metadata, journal, log and data, beside a real group."""

from __future__ import annotations

import errno

import pytest

from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults.fault import Expected
from fserr_bpf_compare.faults.mapper import DEVICE_FAULTS, DeviceFault, mapped, unavailable
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import KernelLog, kernel_version, skip, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.kprobes,
    pytest.mark.usefixtures("scratch_space", "device_mapper"),
]


@pytest.fixture(scope="module")
def device_mapper() -> None:
    if reason := unavailable():
        skip(f"{reason}; test_in_lab.py runs it on some", expected=True)


ENDS = {"ext4": Probe.EXT4_END, "xfs": Probe.XFS_END}


@pytest.mark.parametrize("fault", DEVICE_FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("stream", [Stream.PROPOSED, Stream.FSERROR])
def test_stream_has_what_the_table_promises(
    stream: Stream, fault: DeviceFault, attached: AttachedProbes
) -> None:
    proposed = stream is Stream.PROPOSED
    expected = set(fault.proposed if proposed else fault.fserror)
    if ENDS[fault.fstype] in attached.failed and kernel_version() == (5, 10):
        expected.discard(Expected(errno.ESHUTDOWN, "sb"))  # for the same reason as below
    if fault.name == "xfs_device_log" and proposed and kernel_version() == (5, 10):
        # Debian's XFS of that kernel has no type information: that it has been shut down,
        # and so fails every buffer, cannot be seen.
        expected.add(Expected(errno.EIO, "sb"))
    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        with (
            mapped(fs) as mapper,
            KernelLog() as log,
            Monitor([Mark.filesystem(str(fs.mount_point))], stream, attached=attached) as monitor,
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
