"""btrfs: the handle with its subvolume, and the one event of a file system's fatal error."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from compare import mapper
from compare.scratch import scratch
from fserr_bpf.live import syscalls
from fserr_bpf.live.armed import Armed
from fserr_bpf.model.event import FileHandle, FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.monitor import Monitor
from fserr_bpf.uapi.record import Probe
from tests.live.conftest import KernelLog, skip, wait_until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


@pytest.mark.kprobes
def test_aborted_transaction_on_a_failing_device(armed: Armed) -> None:
    if Probe.BTRFS_ERROR in armed.failed:
        skip(f"btrfs: {armed.failed[Probe.BTRFS_ERROR]}", expected=True)
    if not mapper.available():
        skip("this kernel has no device-mapper", expected=True)
    events: list[FsErrorEvent] = []
    with scratch("btrfs") as fs, mapper.mapped(fs) as device, KernelLog() as log:
        path = str(fs.mount_point / "victim")
        with open(path, "wb") as file:
            file.write(b"x" * 65536)
            os.fsync(file.fileno())
            handle = syscalls.name_to_handle_at(path)
            with Monitor([Mark.filesystem(str(fs.mount_point))], armed=armed) as monitor:
                device.fail()
                file.write(b"y" * 65536)
                file.flush()
                with pytest.raises(OSError, match="Input/output error"):
                    os.fsync(file.fileno())
                # the commit aborts the transaction
                assert subprocess.run(["sync", "-f", path], check=False).returncode != 0

                def failed_for_good() -> bool:
                    events.extend(e for e in monitor.read_events() if isinstance(e, FsErrorEvent))
                    return bool(fatal(events))

                wait_until(failed_for_good, "the fatal error")
        (last,) = fatal(events)
        assert last.origin is not None
        place = f"{last.origin.function}:{last.origin.line}"
        log.wait_for(rf"BTRFS: error .* in {place}: errno=-{last.error}")
    data = [e for e in events if e.handle == FileHandle(handle.handle_type, handle.f_handle)]
    assert {e.error for e in data} == {errno.EIO}
    assert last.handle is None


def fatal(events: list[FsErrorEvent]) -> list[FsErrorEvent]:
    """Those of __btrfs_handle_fs_error."""
    return [e for e in events if e.origin and "btrfs_handle" in e.origin.source]
