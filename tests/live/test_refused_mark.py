"""5.10 before 5.10.220 refuses the mark: no real group can be had, the stream can."""

from __future__ import annotations

import errno

import pytest

from fserr_bpf.errors import MarkError
from fserr_bpf.kernel.fanotify import FanotifyGroup, kernel_accepts_fs_error
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import BY_NAME, skip
from tests.live.test_faults import UUID_TEXT, event_bytes, ext4_fsid, ext4_handle

pytestmark = [
    pytest.mark.root,
    pytest.mark.kprobes,
    pytest.mark.usefixtures("scratch_space"),
]


def test_refused_mark_is_emulated_all_the_same(attached: AttachedProbes) -> None:
    """The bytes are laid out by hand."""
    if kernel_accepts_fs_error():
        skip("this kernel accepts the mark", expected=True)
    fault = BY_NAME["ext4_bad_inode"]
    with scratch("ext4", uuid=UUID_TEXT) as fs:
        fault.prepare(fs)
        handle, path = ext4_handle(fs, "victim"), str(fs.mount_point)
        with FanotifyGroup() as group:
            with pytest.raises(MarkError) as refused:
                group.mark(path)
            assert isinstance(refused.value.__cause__, OSError)
            assert refused.value.__cause__.errno == errno.EINVAL
        with Monitor([Mark.filesystem(path)], Stream.NATIVE, attached=attached) as monitor:
            pid = fault.cause(fs).pid
            seen = monitor.read()
            assert monitor.read() == b""
    assert seen == event_bytes(ext4_fsid(UUID_TEXT), handle, 117, pid)
