"""btrfs: the handle with its subvolume, and the one event of a file system's fatal error."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from fserr_bpf.kernel import syscalls
from fserr_bpf.model.event import FileHandle, FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults import mapper
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import KernelLog, skip, wait_until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]


@pytest.mark.kprobes
def test_aborted_transaction_on_a_failing_device(attached: AttachedProbes) -> None:
    if Probe.BTRFS_ERROR in attached.failed:
        skip(f"btrfs: {attached.failed[Probe.BTRFS_ERROR]}", expected=True)
    if reason := mapper.unavailable():
        skip(reason, expected=True)
    events: list[FsErrorEvent] = []
    with scratch("btrfs") as fs, mapper.mapped(fs) as device, KernelLog() as log:
        path = str(fs.mount_point / "victim")
        with open(path, "wb") as file:
            file.write(b"x" * 65536)
            os.fsync(file.fileno())
            handle = syscalls.name_to_handle_at(path)
            with Monitor([Mark.filesystem(str(fs.mount_point))], attached=attached) as monitor:
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
    # of one task, the file's error may have merged into that which btrfs counts for its device
    victim = FileHandle(handle.handle_type, handle.f_handle)
    before = [e for e in events if e.error != errno.ESHUTDOWN and e is not last]
    assert {e.error for e in before} == {errno.EIO}
    assert {e.handle for e in before} <= {victim, None}
    assert last.handle is None


def fatal(events: list[FsErrorEvent]) -> list[FsErrorEvent]:
    """Those of __btrfs_handle_fs_error, but for the end that it leads to."""
    found = [e for e in events if e.origin and "btrfs_handle" in e.origin.source]
    return [e for e in found if e.error != errno.ESHUTDOWN]
