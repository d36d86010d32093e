"""Run by test_symbolize_kernels.py in a machine: XFS's faults as JSON lines with details."""

from __future__ import annotations

import sys
import time

from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.outputs.formats import FORMATS
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.mapper import DEVICE_FAULTS, mapped
from fserr_bpf_compare.faults.scratch import scratch

PATIENCE = 20.0  # seconds


def main() -> None:
    """Cause every fault of XFS that the stream proposed has, and print what came."""
    with AttachedProbes([Stream.PROPOSED], detail=True) as attached:
        for fault in FAULTS:
            if fault.fstype != "xfs":
                continue
            with scratch(fault.fstype) as fs:
                fault.prepare(fs)
                marks = [Mark.filesystem(str(fs.mount_point))]
                with Monitor(marks, detail=True, attached=attached) as monitor:
                    fault.cause(fs)
                    record(monitor)
        for failing in DEVICE_FAULTS:
            if failing.fstype != "xfs" or not failing.proposed:
                continue
            with scratch(failing.fstype) as fs:
                failing.prepare(fs)
                marks = [Mark.filesystem(str(fs.mount_point))]
                with (
                    mapped(fs) as device,
                    Monitor(marks, detail=True, attached=attached) as monitor,
                ):
                    failing.cause(fs, device)
                    record(monitor)
    sys.stdout.flush()


def record(monitor: Monitor) -> None:
    """Wait for an event, and print all that are there."""
    deadline = time.monotonic() + PATIENCE
    monitor.pump()
    while not len(monitor) and time.monotonic() < deadline:
        monitor.wait(1)
        monitor.pump()
    for event in monitor.read_events():
        sys.stdout.buffer.write(FORMATS["json"].encode(event))


if __name__ == "__main__":
    main()
