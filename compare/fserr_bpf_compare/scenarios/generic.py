"""File data that cannot be written or read, on any file system, and the end of an f2fs."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from fserr_bpf.errors import LabError
from fserr_bpf_compare.faults.cutting import (
    MKFS_OPTIONS,
    MOUNT_OPTIONS,
    PAYLOAD,
    WRITEBACK_LOG,
    cut,
    last_victim,
    write_victims,
)
from fserr_bpf_compare.faults.fault import Expected, run_child
from fserr_bpf_compare.faults.fulldisk import NO_SPACE, full, small_disk
from fserr_bpf_compare.faults.scratch import Scratch
from fserr_bpf_compare.scenarios import ends
from fserr_bpf_compare.scenarios.scenario import Fixture, Need, Scenario, by_stream

_FSTYPES = ("ext4", "xfs", "btrfs")
_NO_LOG = dict.fromkeys(_FSTYPES, "")


@dataclass(frozen=True)
class _Transfer:
    """A shell command that moves data of the file ``$0`` and must fail.

    ``stderr`` is a regular expression for what it then writes there.
    ``disk`` is where the file systems live, ``broken`` the context in which the data of
    a file cannot be reached. The file systems in ``reported`` send ``error`` since 7.0.
    """

    name: str
    summary: str
    command: str
    stderr: str
    reported: Sequence[str]
    evidence: Mapping[str, str]
    error: int = errno.EIO
    disk: Callable[[], AbstractContextManager[None]] = nullcontext
    broken: Callable[[Scratch, str], AbstractContextManager[None]] = cut


_DD = f"exec dd bs={PAYLOAD} count=1"
# 7.x reports where data goes through iomap. Those are buffered reads and writes of XFS
# (iomap_finish_folio_read(), iomap_finish_ioend_buffered_write()) and direct ones of all
# three (iomap_dio_complete()). ext4 and btrfs have buffered reads and writes of their own.
_TRANSFERS = (
    _Transfer(
        name="writeback",
        summary="writes back data behind the end of a shrunken device",
        command=f'{_DD} if=/dev/zero of="$0" conv=notrunc,fsync',
        evidence=WRITEBACK_LOG,
        stderr="fsync failed .*Input/output error",
        reported=("xfs",),
    ),
    _Transfer(
        name="writeback_enospc",
        summary="writes back data for which the device has no room",
        command=f'{_DD} if=/dev/zero of="$0" conv=notrunc,fsync',
        # EIO from older loop devices and, whatever the device says, from newer btrfs
        stderr="fsync failed .*(No space left on device|Input/output error)",
        # which counts EIO only
        evidence=WRITEBACK_LOG | {"btrfs": f"{NO_SPACE}|{WRITEBACK_LOG['btrfs']}"},
        reported=("xfs",),
        error=errno.ENOSPC,
        disk=small_disk,
        broken=full,
    ),
    _Transfer(
        name="writeback_deleted",
        summary="writes back data of a file that is deleted and still open",
        command=f'exec 1<>"$0"; rm "$0"; {_DD} if=/dev/zero conv=notrunc,fsync',
        evidence=WRITEBACK_LOG,
        stderr="fsync failed .*Input/output error",
        reported=("xfs",),
    ),
    _Transfer(
        name="read",
        summary="reads data behind the end of a shrunken device",
        command=f'{_DD} if="$0" of=/dev/null',
        evidence=_NO_LOG,
        stderr="error reading .*Input/output error",
        reported=("xfs",),
    ),
    _Transfer(
        name="direct_read",
        summary="reads data behind the end of a shrunken device, past the page cache",
        # dd has not touched its buffer yet: btrfs would read through the page cache
        command=f'exec xfs_io -r -d -c "pread -b {PAYLOAD} 0 {PAYLOAD}" "$0"',
        evidence=_NO_LOG,
        stderr="pread: Input/output error",
        reported=_FSTYPES,
    ),
    _Transfer(
        name="direct_write",
        summary="writes data behind the end of a shrunken device, past the page cache",
        command=f'{_DD} if=/dev/zero of="$0" oflag=direct conv=notrunc',
        evidence=_NO_LOG,
        stderr="error writing .*Input/output error",
        reported=_FSTYPES,
    ),
)


def _scenario(fstype: str, transfer: _Transfer) -> Scenario:
    def run(fixture: Fixture) -> None:
        fixture.enter(transfer.disk())
        fs = fixture.scratch(
            fstype, mkfs_options=MKFS_OPTIONS[fstype], mount_options=MOUNT_OPTIONS[fstype]
        )
        write_victims(fs)
        path = last_victim(fs)
        fixture.watch(fs)
        with transfer.broken(fs, path):
            process = fixture.record(run_child("sh", "-c", transfer.command, path, path=path))
        if not re.search(transfer.stderr, process.stderr):
            message = process.stderr.strip()
            raise LabError(f"{transfer.name} on {fstype} did not fail as it must: {message!r}")

    errors = (Expected(transfer.error, "inode"),)
    return Scenario(
        name=f"{fstype}_{transfer.name}",
        area="generic",
        summary=transfer.summary,
        run=run,
        expected=by_stream(
            fserror=errors if fstype in transfer.reported else (),
            proposed=errors if "writeback" in transfer.name else (),
        ),
        evidence=transfer.evidence[fstype],
        needs=frozenset({Need.BTRFS} if fstype == "btrfs" else {}),
    )


SCENARIOS: tuple[Scenario, ...] = (
    *(_scenario(fstype, transfer) for transfer in _TRANSFERS for fstype in _FSTYPES),
    *ends.OTHERS,
)
