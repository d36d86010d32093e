"""A real PostgreSQL on a failing device: the error of its file comes before it panics."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest

from fserr_bpf_compare.faults import mapper
from fserr_bpf_compare.faults.cutting import MKFS_OPTIONS
from fserr_bpf_compare.faults.extents import first_physical
from fserr_bpf_compare.faults.mapper import Mapper, mapped
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.live.conftest import loop_devices_below, mount_points_below, skip, wait_until
from tests.live.postgresql import PostgreSQL, postgresql, programs
from tests.live.watching_files import Watching, watching

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("file_systems")]

_SIZE = 1 << 30
_FILLER = 16 << 20
_ROOM = 6  # fillers' worth for the table
_BLOCK = 4096
# the user postgres may use all of it
_MKFS = {"ext4": (*MKFS_OPTIONS["ext4"], "-m", "0"), "xfs": MKFS_OPTIONS["xfs"]}
_TABLE = "create table t (id int, v int, pad char(200)) with (fillfactor=40)"
_FILL = "insert into t select i, 0, 'x' from generate_series(1, 100000) i"
HOOK = 'now=$(date +%s.%N); echo "$now $FSERR_TIME $FSERR_COUNT $FSERR_PATH" >> "$HOOKED"'


class Extent(NamedTuple):
    """Bytes on the device."""

    start: int
    length: int


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder for scratch file systems that the user postgres may enter."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="fserr-", dir="/tmp") as name:
        home = Path(name).resolve()
        home.chmod(0o755)
        tempfile.tempdir = str(home)
        try:
            yield home
        finally:
            tempfile.tempdir = before
        assert mount_points_below(home) == []
        assert loop_devices_below(home) == []


def extents(path: Path) -> list[Extent]:
    """Where the data of ``path`` is."""
    text = run("filefrag", "-v", f"-b{_BLOCK}", str(path))
    rows = re.findall(r"^ *\d+: +\d+\.\. *\d+: +(\d+)\.\. *\d+: +(\d+):", text, re.MULTILINE)
    return [Extent(int(start) * _BLOCK, int(length) * _BLOCK) for start, length in rows]


@contextmanager
def only_the_end_is_free(folder: Path) -> Iterator[int]:
    """Until the end of the block only the device's end has much room, from this byte on."""
    fillers: list[Path] = []
    while True:
        filler = folder / f"filler{len(fillers)}"
        filler.touch()
        allocate = ["fallocate", "-l", str(_FILLER), str(filler)]
        if subprocess.run(allocate, capture_output=True, check=False).returncode:
            filler.unlink()
            break
        fillers.append(filler)
    assert len(fillers) > 2 * _ROOM
    fillers.sort(key=first_physical)
    end = first_physical(fillers[-_ROOM])
    for filler in fillers[-_ROOM:]:
        filler.unlink()
    yield end
    before = free_space(folder)
    for filler in fillers[:-_ROOM]:
        filler.unlink()
    # XFS frees it in the background, and uses it again when its log has reached the disk
    least = before + (len(fillers) - _ROOM) * _FILLER
    wait_until(lambda: free_space(folder) >= least, "the space to be free")
    run("sync", "--file-system", str(folder))


def free_space(folder: Path) -> int:
    """In bytes."""
    found = os.statvfs(folder)
    return found.f_bfree * found.f_frsize


def table_at_the_end(pg: PostgreSQL, fs: Scratch) -> tuple[Path, Extent]:
    """A table that is on the disk, and a large part of it behind what will be written."""
    with only_the_end_is_free(fs.mount_point) as end:
        pg.sql(_TABLE)
        pg.sql(_FILL)
        pg.sql("checkpoint")
    table = pg.data / pg.sql("select pg_relation_filepath('t')")
    behind = [extent for extent in extents(table) if extent.start >= end]
    largest = max(behind, key=lambda extent: extent.length)
    assert largest.length > 1 << 20
    return table, largest


def cut(fs: Scratch, _: Mapper | None, where: Extent) -> None:
    fs.shrink_device(where.start)


def fail(_: Scratch, mapper_: Mapper | None, where: Extent) -> None:
    assert mapper_ is not None
    mapper_.fail_range(where.start, where.length)


def counted(started: Watching) -> int:
    """The errors that hooks have stood for."""
    return sum(int(line.split(" ")[2]) for line in started.hooked())


def matched(started: Watching) -> int:
    """The errors in the events."""
    return sum(event["error_count"] for event in started.events())


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "at_once"])
def test_the_error_of_the_relation_comes_before_the_panic(
    fstype: str,
    flushed: bool,
    reachable: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    """``flushed``: the kernel writes back before the checkpoint, as it does after some seconds.

    Else it is the checkpoint that makes it write: then all there is to be sure of is that the
    kernel has the error before PostgreSQL; by how much it comes first is measured.
    """
    found = programs()
    if found is None:
        skip("PostgreSQL is not installed", expected=False)
    # without device-mapper everything behind fails too, but it is seldom used
    by = cut if mapper.unavailable() else fail
    with scratch(fstype, mkfs_options=_MKFS[fstype], size=_SIZE) as fs:
        fs.directory.chmod(0o755)
        on: AbstractContextManager[Mapper | None] = mapped(fs) if by is fail else nullcontext()
        data = fs.mount_point / "data"
        with on as device, postgresql(found, data, reachable / "wal", reachable / "home") as pg:
            table, where = table_at_the_end(pg, fs)
            globs = ("--glob", f"{data}/base/**", "--glob", f"{data}/global/**")
            with watching(reachable, *globs, hook=HOOK) as started:
                pg.sql("update t set v = v + 1")
                by(fs, device, where)
                if flushed:
                    subprocess.run(["sync", "--file-system", fs.mount_point], check=False)
                    wait_until(lambda: bool(started.hooked()), "the hook")
                    assert pg.messages("PANIC") == []
                    assert pg.sql("select 'alive'") == "alive"  # it does not know yet
                assert "server closed the connection" in pg.fails("checkpoint")
                wait_until(lambda: pg.server.poll() is not None, "PostgreSQL to end")
                wait_until(lambda: counted(started) == matched(started), "hooks for all")
                assert started.end() == 0
    ((panic, why),) = pg.messages("PANIC")
    relation = table.relative_to(data)
    assert why == f'could not fsync file "{relation}": Input/output error'

    events = started.events()
    hooks = [line.split(" ", 3) for line in started.hooked()]
    assert {event["path"] for event in events} == {path for *_, path in hooks} == {str(table)}
    assert {event["errno"] for event in events} == {"EIO"}
    # each event in exactly one run
    run_, failed, timed_out, joined, dropped = started.hooks()
    assert (run_, failed, timed_out, dropped) == (len(hooks), 0, 0, 0)
    assert run_ + joined == len(events)
    assert counted(started) == matched(started)
    assert started.account(flood=True) == (len(events), False, False)

    # PANIC is rounded down to milliseconds: that is the strict side
    begun, seen = float(hooks[0][0]), events[0]["time_ns"] / 1e9
    assert seen < panic
    assert seen < begun
    if flushed:
        assert begun < panic
    what = f"postgresql {fstype} {by.__name__}{'' if flushed else ' at once'}"
    record_testsuite_property(f"{what}: ms from error to hook", round((begun - seen) * 1e3, 1))
    record_testsuite_property(f"{what}: ms from hook to PANIC", round((panic - begun) * 1e3, 1))
    record_testsuite_property(f"{what}: events, hooks", f"{len(events)}, {run_}")
