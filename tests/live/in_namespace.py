"""Run by test_namespaces.py inside a pid namespace of its own: one fault, both streams.

Prints the pid of the process that met the error as this namespace knows it, the
emulated bytes and the real group's, one a line.
"""

from __future__ import annotations

import select
import sys

from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.scratch import scratch


def main(name: str, stream: str) -> None:
    """Cause the fault ``name`` while both sides sleep, then read both."""
    (fault,) = (f for f in FAULTS if f.name == name)
    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        path = str(fs.mount_point)
        with FanotifyGroup() as group, Monitor([Mark.filesystem(path)], Stream(stream)) as monitor:
            if stream == Stream.NATIVE:
                group.mark(path)
            caused = fault.cause(fs)
            monitor.wait(10)
            if stream == Stream.NATIVE:  # a kernel's worker tells the monitor first
                select.select([group], [], [], 10)
            print(caused.pid, monitor.read().hex() or "-", group.read().hex() or "-", sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
