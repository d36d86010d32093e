"""What mounting, unmounting and mount options of an ext4 do to its errors."""

from __future__ import annotations

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.faults import ext4
from fserr_bpf_compare.faults.fault import EFSCORRUPTED, Expected
from fserr_bpf_compare.faults.scratch import Scratch
from fserr_bpf_compare.scenarios.scenario import Fixture, Scenario, Version, always

_BY_NAME = {fault.name: fault for fault in ext4.FAULTS}
_TRIGGER = _BY_NAME["ext4_trigger"]
_GRP_LOCKED = _BY_NAME["ext4_grp_locked"]
_SUPERBLOCK = Expected(EFSCORRUPTED, "sb")
_READ_ONLY = ("errors=remount-ro", "noinit_itable")
# Since this version ext4_handle_error() itself closes the gate of all later reports.
_GATE_CLOSES = (6, 6)
_FREE_INODE = 500  # of a new file system


def _remount_ro(fixture: Fixture) -> None:
    """Two errors; up to 6.5 both are reported."""
    fs = fixture.scratch("ext4", mount_options=_READ_ONLY)
    fixture.watch(fs)
    for _ in range(2):
        fixture.record(_TRIGGER.cause(fs))


def _unreported_first(fixture: Fixture) -> None:
    """An error that nobody reports makes the file system read-only, before one that is reported."""
    fs = fixture.scratch("ext4", mount_options=_READ_ONLY)
    _GRP_LOCKED.damage(fs)
    fixture.watch(fs)
    fixture.record(_GRP_LOCKED.cause(fs))
    fixture.record(_TRIGGER.cause(fs))


def _after_unreported(_sent: Stream, version: Version) -> frozenset[Expected]:
    return frozenset() if version >= _GATE_CLOSES else frozenset({_SUPERBLOCK})


def _unmounted(fixture: Fixture) -> None:
    """What is queued stays; nothing of the next mount comes."""
    fs = fixture.scratch("ext4")
    fixture.watch(fs)
    fixture.record(_TRIGGER.cause(fs))
    fixture.settle()  # since 7.0 unmounting drops what was not delivered
    fs.unmount()
    fs.mount()
    fixture.record(_TRIGGER.cause(fs))


def _damage_orphan(fs: Scratch) -> None:
    """Put an inode that is free on the list of orphans of ``fs``, which stays unmounted."""
    fs.unmount()
    ext4.debugfs(fs, f"set_super_value last_orphan {_FREE_INODE}", "-w")


def _orphan_of_second_mount(fixture: Fixture) -> None:
    """The mark went with the first mount, though the device is the same."""
    fs = fixture.scratch("ext4")
    fixture.watch(fs)
    _damage_orphan(fs)
    fs.mount()


def _orphan_before_mark(fixture: Fixture) -> None:
    fs = fixture.scratch("ext4")
    _damage_orphan(fs)
    fs.mount()
    fixture.watch(fs)


_ORPHAN_LOG = r"EXT4-fs error \(device {dev}\): ext4_orphan_get:\d+: comm mount: bad orphan inode"

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="ext4_remount_ro",
        area="ext4",
        summary="two errors with errors=remount-ro: since 6.6 only the first is reported",
        run=_remount_ro,
        expected=always(_SUPERBLOCK),
        evidence=_TRIGGER.log,
    ),
    Scenario(
        name="ext4_remount_ro_unreported",
        area="ext4",
        summary="the same after an error that is not reported: since 6.6 none is",
        run=_unreported_first,
        expected=_after_unreported,
        evidence=_GRP_LOCKED.log,
    ),
    Scenario(
        name="ext4_unmount",
        area="ext4",
        summary="unmounts with an event in the queue, and mounts again",
        run=_unmounted,
        expected=always(_SUPERBLOCK),
        evidence=_TRIGGER.log,
    ),
    Scenario(
        name="ext4_orphan_remounted",
        area="ext4",
        summary="mounts again, with an error in the list of orphans: not delivered",
        run=_orphan_of_second_mount,
        expected=always(),
        evidence=_ORPHAN_LOG,
    ),
    Scenario(
        name="ext4_orphan_unmarked",
        area="ext4",
        summary="marks after such a mount: no earlier error is delivered",
        run=_orphan_before_mark,
        expected=always(),
        evidence=_ORPHAN_LOG,
    ),
)
