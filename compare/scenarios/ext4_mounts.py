"""What mounting, unmounting and mount options of an ext4 do to its errors."""

from __future__ import annotations

from compare.faults import ext4
from compare.faults.fault import EFSCORRUPTED, Expected
from compare.scenario import Scenario, Stage, Version, always
from compare.scratch import Scratch
from fserr_bpf.model.stream import Stream

_BY_NAME = {fault.name: fault for fault in ext4.FAULTS}
_TRIGGER = _BY_NAME["ext4_trigger"]
_GRP_LOCKED = _BY_NAME["ext4_grp_locked"]
_SUPERBLOCK = Expected(EFSCORRUPTED, "sb")
_READ_ONLY = ("errors=remount-ro", "noinit_itable")
# Since this version ext4_handle_error() itself closes the gate of all later reports.
_GATE_CLOSES = (6, 6)
_FREE_INODE = 500  # of a new file system


def _remount_ro(stage: Stage) -> None:
    """Two errors; up to 6.5 both are reported."""
    fs = stage.scratch("ext4", mount_options=_READ_ONLY)
    stage.watch(fs)
    for _ in range(2):
        stage.caused(_TRIGGER.cause(fs))


def _silent_first(stage: Stage) -> None:
    """An error that nobody reports makes the file system read-only, before one that is reported."""
    fs = stage.scratch("ext4", mount_options=_READ_ONLY)
    _GRP_LOCKED.damage(fs)
    stage.watch(fs)
    stage.caused(_GRP_LOCKED.cause(fs))
    stage.caused(_TRIGGER.cause(fs))


def _after_silence(_sent: Stream, version: Version) -> frozenset[Expected]:
    return frozenset() if version >= _GATE_CLOSES else frozenset({_SUPERBLOCK})


def _unmounted(stage: Stage) -> None:
    """What is queued stays; nothing of the next mount comes."""
    fs = stage.scratch("ext4")
    stage.watch(fs)
    stage.caused(_TRIGGER.cause(fs))
    stage.settle()  # since 7.0 unmounting drops what was not delivered
    fs.unmount()
    fs.mount()
    stage.caused(_TRIGGER.cause(fs))


def _damage_orphan(fs: Scratch) -> None:
    """Put an inode that is free on the list of orphans of ``fs``, which stays unmounted."""
    fs.unmount()
    ext4.debugfs(fs, f"set_super_value last_orphan {_FREE_INODE}", "-w")


def _orphan_of_second_mount(stage: Stage) -> None:
    """The mark went with the first mount, though the device is the same."""
    fs = stage.scratch("ext4")
    stage.watch(fs)
    _damage_orphan(fs)
    fs.mount()


def _orphan_before_mark(stage: Stage) -> None:
    fs = stage.scratch("ext4")
    _damage_orphan(fs)
    fs.mount()
    stage.watch(fs)


_ORPHAN_LOG = r"EXT4-fs error \(device {dev}\): ext4_orphan_get:\d+: comm mount: bad orphan inode"

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="ext4_remount_ro",
        area="ext4",
        summary="two errors with errors=remount-ro: since 6.6 only the first is reported",
        play=_remount_ro,
        expected=always(_SUPERBLOCK),
        evidence=_TRIGGER.log,
    ),
    Scenario(
        name="ext4_remount_ro_silent",
        area="ext4",
        summary="the same after an error that is not reported: since 6.6 none is",
        play=_silent_first,
        expected=_after_silence,
        evidence=_GRP_LOCKED.log,
    ),
    Scenario(
        name="ext4_unmount",
        area="ext4",
        summary="unmounts with an event in the queue, and mounts again",
        play=_unmounted,
        expected=always(_SUPERBLOCK),
        evidence=_TRIGGER.log,
    ),
    Scenario(
        name="ext4_orphan_remounted",
        area="ext4",
        summary="mounts again, with an error in the list of orphans: not delivered",
        play=_orphan_of_second_mount,
        expected=always(),
        evidence=_ORPHAN_LOG,
    ),
    Scenario(
        name="ext4_orphan_unmarked",
        area="ext4",
        summary="marks after such a mount: nothing old is delivered",
        play=_orphan_before_mark,
        expected=always(),
        evidence=_ORPHAN_LOG,
    ),
)
