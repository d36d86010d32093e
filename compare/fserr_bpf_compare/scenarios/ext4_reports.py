"""Operations on ext4 that report one problem several times, with errors of either sign.

Up to 6.19 most functions report positive errors, ``__ext4_std_error()`` and
``__ext4_mark_inode_dirty()`` negative ones. What one process meets merges, and the first
error is shown.
"""

from __future__ import annotations

import errno
from pathlib import Path

from fserr_bpf_compare.faults import ext4
from fserr_bpf_compare.faults.fault import (
    EFSCORRUPTED,
    Expected,
    TriggerProcess,
    number_in,
    run_child,
    write_file,
)
from fserr_bpf_compare.faults.mapper import mapped
from fserr_bpf_compare.faults.scratch import Scratch
from fserr_bpf_compare.scenarios.scenario import Fixture, Need, Scenario, always

_BY_NAME = {fault.name: fault for fault in ext4.FAULTS}
_FILES = 40
# Inodes and metadata of a group lie in the group itself, so that a cut hits the last one.
_EACH_FOR_ITSELF = ("-O", "^flex_bg")
_JOURNAL = 8  # EXT4_JOURNAL_INO
_JOURNAL_LAST = ("-b", "4096", "-J", "size=4,location=48M")
_SIM_INODE_EIO = "5"  # EXT4_SIM_INODE_EIO in fs/ext4/ext4.h


def _bitmap_and_std_error(fixture: Fixture) -> None:
    """The second process meets the bitmap that is known to be bad: std_error alone, -117."""
    bitmap = _BY_NAME["ext4_inode_bitmap_checksum"]
    fs = fixture.scratch(bitmap.fstype, mkfs_options=bitmap.mkfs_options)
    for name in ("one", "other"):
        write_file(fs, name)
    bitmap.damage(fs)
    fixture.watch(fs)
    for name in ("one", "other"):
        path = str(fs.mount_point / name)
        fixture.record(run_child("rm", path, path=path))


def _with_a_free_inode(fixture: Fixture) -> tuple[Scratch, Path, int]:
    """A file system, a directory in it, and the byte offset of the block with its next inode.

    Other inodes of that block are in use, so it has to be read. All lies in the last group.
    """
    fs = fixture.scratch("ext4", mkfs_options=_EACH_FOR_ITSELF)
    for index in range(8):  # ext4 spreads them over the groups
        (fs.mount_point / f"group{index}").mkdir()
    directory = max(fs.mount_point.iterdir(), key=lambda path: path.stat().st_ino)
    for index in range(_FILES):
        (directory / f"file{index}").touch()
    middle = directory / f"file{_FILES // 2}"
    ino = middle.stat().st_ino
    middle.unlink()
    fs.unmount()
    block = number_in(r"located at block (\d+), offset", ext4.debugfs(fs, f"imap <{ino}>"))
    offset = block * ext4.ext4_block_size(fs)
    fs.mount()
    return fs, directory, offset


def _cache_only(fs: Scratch, directory: Path) -> None:
    """Cache the inode and the data of ``directory``, and no inodes beside it."""
    Path(f"/sys/fs/ext4/{fs.device_name}/inode_readahead_blks").write_text("0")
    # Linux 5.10 forgets what it knows of a device that shrinks, unless the journal holds it.
    (directory / "file0").rename(directory / "renamed")


def _mkdir(directory: Path) -> TriggerProcess:
    path = str(directory / "new")
    return run_child("mkdir", path, path=path)


def _itable_cut(fixture: Fixture) -> None:
    """There is no buffer for a block behind the end: sb_getblk() finds nothing, so -ENOMEM."""
    fs, directory, offset = _with_a_free_inode(fixture)
    _cache_only(fs, directory)
    fixture.watch(fs)
    fs.shrink_device(offset)
    fixture.record(_mkdir(directory))
    fs.restore_device()


def _itable_failing(fixture: Fixture) -> None:
    fs, directory, offset = _with_a_free_inode(fixture)
    length = ext4.ext4_block_size(fs)
    device = fixture.enter(mapped(fs))
    _cache_only(fs, directory)
    fixture.watch(fs)
    device.fail_range(offset, length)
    fixture.record(_mkdir(directory))


def _itable_simulated(fixture: Fixture) -> None:
    fs, directory, _ = _with_a_free_inode(fixture)
    _cache_only(fs, directory)
    fixture.watch(fs)
    switch = Path(f"/sys/fs/ext4/{fs.device_name}/simulate_fail")
    switch.write_text(_SIM_INODE_EIO)
    fixture.record(_mkdir(directory))
    switch.write_text("0")


def _journal_abort(fixture: Fixture) -> None:
    fs = fixture.scratch("ext4", mkfs_options=_JOURNAL_LAST)
    write_file(fs, "victim")
    fs.unmount()
    block = number_in(r"(\d+)", ext4.debugfs(fs, f"bmap <{_JOURNAL}> 0"))
    offset = block * ext4.ext4_block_size(fs)
    fs.mount()
    fixture.watch(fs)
    path = str(fs.mount_point)
    fs.shrink_device(offset)
    aborts = 'touch "$0/victim"; sync "$0/victim"; mkdir "$0/new"; exec mkdir "$0/other"'
    fixture.record(run_child("sh", "-c", aborts, path, path=path))
    fs.restore_device()


_EIO = Expected(errno.EIO, "inode")

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="ext4_std_error",
        area="ext4",
        summary="frees two inodes by a bad bitmap: the second time only -117 is reported",
        run=_bitmap_and_std_error,
        expected=always(Expected(EFSCORRUPTED, "sb")),
        evidence=r"EXT4-fs error \(device {dev}\) in ext4_free_inode:\d+: Corrupt filesystem",
    ),
    Scenario(
        name="ext4_itable_cut",
        area="ext4",
        summary="makes a directory whose inode lies behind the end of a shrunken device: -12",
        run=_itable_cut,
        expected=always(Expected(errno.ENOMEM, "sb")),
        evidence=r"EXT4-fs error \(device {dev}\) in ext4_reserve_inode_write:\d+: Out of memory",
    ),
    Scenario(
        name="ext4_itable_failing",
        area="ext4",
        summary="makes a directory whose inode cannot be read: 5, -5, -5 and more",
        run=_itable_failing,
        expected=always(_EIO),
        evidence=r"EXT4-fs error \(device dm-\d+\): .* comm mkdir: unable to read itable block",
        needs=frozenset({Need.DEVICE_MAPPER}),
    ),
    Scenario(
        name="ext4_itable_simulated",
        area="ext4",
        summary="makes a directory while simulate_fail fails the reading of inodes: 5, -5, -5",
        run=_itable_simulated,
        expected=always(_EIO),
        evidence=r"EXT4-fs error \(device {dev}\): .* comm mkdir: unable to read itable block",
        needs=frozenset({Need.SIMULATE_FAIL}),
    ),
    Scenario(
        name="ext4_journal_abort",
        area="ext4",
        summary="makes directories after the journal was aborted, as it cannot be written",
        run=_journal_abort,
        expected=always(Expected(errno.EIO, "sb")),
        evidence=r"EXT4-fs error \(device {dev}\): ext4_journal_check_start:.*Detected aborted",
    ),
)
