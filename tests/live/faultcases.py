"""Everything that is broken anywhere in the tests, in one shape: a file system and how it fails.

Faults, ends and scenarios of ``compare/`` are played as they are there. What has no row there
is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

from fserr_bpf_compare.faults import FAULTS, mapper, removed
from fserr_bpf_compare.faults.ends import ENDS, End
from fserr_bpf_compare.faults.fault import Fault, TriggerProcess, run_child, write_file
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from fserr_bpf_compare.faults.writeback import BTRFS_DEVICE_GONE
from fserr_bpf_compare.scenarios import ext4_reports, generic
from fserr_bpf_compare.scenarios import xfs as xfs_scenarios
from fserr_bpf_compare.scenarios.ext4 import SCENARIOS as EXT4_SCENARIOS
from fserr_bpf_compare.scenarios.scenario import Fixture, Need, Scenario
from tests.live import smallcases

Watch = Callable[[Scratch], None]
_SMALL = (
    ("f2fs_address", "f2fs", r"F2FS-fs \({dev}\): ", smallcases.f2fs_address),
    ("vfat_chain", "vfat", r"FAT-fs \({dev}\): error", smallcases.vfat_chain),
    ("nilfs2_directory", "nilfs2", r"NILFS error \(device {dev}\)", smallcases.nilfs2_directory),
    ("jfs_inode", "jfs", r"ERROR: \(device {dev}\)", smallcases.jfs_inode),
    ("ocfs2_inode", "ocfs2", r"OCFS2: ERROR \(device {dev}\)", smallcases.ocfs2_inode),
)


@dataclass(frozen=True)
class Case:
    """``play`` makes the file system, calls its argument when it is to be watched, and breaks it.

    ``log`` is what the kernel logs then, ``{dev}`` for the device's name, "" for any error.
    ``needs_mapper``, ``needs_disk``: device-mapper or scsi_debug.
    """

    name: str
    fstype: str
    log: str
    play: Callable[[ExitStack, Watch], object]
    needs_mapper: bool = False
    needs_disk: bool = False


def cases() -> Iterator[Case]:
    """Each thing that can be broken once, by name."""
    known: set[str] = set()
    for case in _all():
        if case.name not in known:
            known.add(case.name)
            yield case


def _all() -> Iterator[Case]:
    for fault in (*FAULTS, BTRFS_DEVICE_GONE):
        yield _of_fault(fault)
    by_name = {fault.name: fault for fault in FAULTS}
    yield _of_fault(
        replace(
            by_name["xfs_bnobt"],
            name="xfs_btree_pointer",
            log=r"XFS \({dev}\): .*Corrupt .* pointer",
            damage=_bad_pointer,
        )
    )
    yield from (_of_end(end) for end in ENDS if end.log)
    devices = [s for s in (*EXT4_SCENARIOS, *xfs_scenarios.SCENARIOS) if "_device_" in s.name]
    for scenario in (*ext4_reports.SCENARIOS, *devices, *generic.SCENARIOS):
        if scenario.evidence and Need.SIMULATE_FAIL not in scenario.needs:
            yield _of_scenario(scenario)
    for fstype in ("ext4", "xfs", "btrfs", "f2fs"):
        yield _failing_device(fstype)
    for fstype in ("ext4", "xfs"):
        yield _removed_disk(fstype)
    yield Case("btrfs_data_checksum", "btrfs", r"BTRFS warning .*csum failed", _bad_checksum)
    for name, fstype, log, damage in _SMALL:
        yield Case(name, fstype, log, smallcases.play(fstype, damage))


def _of_fault(fault: Fault) -> Case:
    def play(stack: ExitStack, watch: Watch) -> None:
        fs = stack.enter_context(scratch(fault.fstype))
        fault.prepare(fs)
        watch(fs)
        fault.cause(fs)

    return Case(fault.name, fault.fstype, fault.log, play)


def _of_end(end: End) -> Case:
    def play(stack: ExitStack, watch: Watch) -> None:
        made = scratch(end.fstype, mkfs_options=end.mkfs_options, mount_options=end.mount_options)
        fs = stack.enter_context(made)
        end.damage(fs)
        watch(fs)
        end.cause(fs)

    return Case(end.name, end.fstype, end.log, play)


class _Playing:
    """As much of a `Fixture` as scenarios need that do not read."""

    def __init__(self, stack: ExitStack, watch: Watch) -> None:
        self._stack, self._watch = stack, watch

    def scratch(self, fstype: str, **options: Any) -> Scratch:
        return self._stack.enter_context(scratch(fstype, **options))

    def enter(self, context: AbstractContextManager[Any]) -> Any:
        return self._stack.enter_context(context)

    def watch(
        self,
        *marked: Scratch,
        inodes: Sequence[str] = (),
        flags: int = 0,
        max_events: int | None = None,
    ) -> None:
        (fs,) = marked
        self._watch(fs)

    def record(self, process: TriggerProcess) -> TriggerProcess:
        return process


def _of_scenario(scenario: Scenario) -> Case:
    def play(stack: ExitStack, watch: Watch) -> None:
        scenario.run(cast("Fixture", _Playing(stack, watch)))

    return Case(
        name=scenario.name,
        fstype=scenario.name.partition("_")[0],
        log=scenario.evidence,
        play=play,
        needs_mapper=Need.DEVICE_MAPPER in scenario.needs,
    )


# what has no row in a table

_USE = 'sync -f "$0"; touch "$0/file"; sync -f "$0"'


def _failing_device(fstype: str) -> Case:
    """The whole device fails under changes that are not written yet."""

    def play(stack: ExitStack, watch: Watch) -> None:
        fs = stack.enter_context(scratch(fstype))
        device = stack.enter_context(mapper.mapped(fs))
        (fs.mount_point / "file").write_bytes(b"x" * 65536)
        watch(fs)
        device.fail()
        path = str(fs.mount_point)
        run_child("sh", "-c", _USE, path, path=path)

    return Case(f"{fstype}_failing_device", fstype, "", play, needs_mapper=True)


def _removed_disk(fstype: str) -> Case:
    def play(stack: ExitStack, watch: Watch) -> None:
        fs = stack.enter_context(scratch(fstype))
        disk = stack.enter_context(removed.on_disk(fs))
        (fs.mount_point / "file").write_bytes(b"x" * 65536)
        watch(fs)
        disk.remove()
        path = str(fs.mount_point)
        run_child("sh", "-c", _USE, path, path=path)

    return Case(f"{fstype}_removed_disk", fstype, "", play, needs_disk=True)


def _bad_pointer(fs: Scratch) -> None:
    """The root of the btree of free space is behind the end of the allocation group."""
    write_file(fs, "file")
    fs.unmount()
    run("xfs_db", "-x", "-c", "agf 0", "-c", "write -d bnoroot 2000000000", fs.device)
    fs.mount()


def _bad_checksum(stack: ExitStack, watch: Watch) -> None:
    """Data of a btrfs that does not fit its checksum."""
    fs = stack.enter_context(scratch("btrfs"))
    content = b"fserr-bpf looks for this" * 4096
    (fs.mount_point / "victim").write_bytes(content)
    fs.unmount()
    place = fs.image.read_bytes().find(content[:4096])
    assert place >= 0
    fs.overwrite(place, b"\xff" * 16)
    fs.mount()
    watch(fs)
    path = str(fs.mount_point / "victim")
    run_child("cat", path, path=path)
