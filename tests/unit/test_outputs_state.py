"""States in words: the table of `status`, the lines of `run`."""

from __future__ import annotations

import errno
import time

import pytest

from fserr_bpf.model.state import (
    Condition,
    DeviceErrors,
    FilesystemState,
    RecordedError,
    StateChange,
)
from fserr_bpf.outputs.state import change_line, table
from fserr_bpf.uapi.dev import Dev

WELL = FilesystemState(
    dev=Dev(254, 3),
    device="dm-3",
    mapper="vg0-data",
    below=("sda2", "sda"),
    fstype="ext4",
    mount_points=("/srv", "/mnt"),
    hidden=False,
    condition=Condition.OK,
)
FIRST = RecordedError(86400 * 365, "ext4_lookup", 1700, errno.EUCLEAN, 12, 0)
SICK = WELL._replace(
    condition=Condition.ERRORS,
    errors=2,
    first=FIRST,
    last=FIRST._replace(ino=0, block=99),
    reason="the superblock has errors on record",
)
COUNTED = WELL._replace(
    device="sdb",
    mapper="",
    below=(),
    fstype="btrfs",
    mount_points=("/evil\n\x1b",),
    hidden=True,
    condition=Condition.ERRORS,
    devices=(DeviceErrors("/dev/sdb", 3, 0, 1, 0, 0), DeviceErrors("/dev/sdc", 0, 0, 0, 0, 0)),
    reason="errors counted on its devices",
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are local ones."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_table_has_all_of_them() -> None:
    # fmt: off
    assert table([WELL, COUNTED]).splitlines() == [
        "CONDITION  DEVICE                        TYPE   MOUNT POINT             WHAT IS KNOWN",
        "ok         dm-3 (vg0-data) on sda2, sda  ext4   /srv",
        r"errors     sdb                           btrfs  /evil\x0a\x1b (hidden)  "
        "errors counted on its devices; /dev/sdb: write 3 flush 1",
    ]
    # fmt: on


def test_line_says_what_was_before() -> None:
    where = "state of /srv (ext4 on dm-3 (vg0-data) on sda2, sda): "
    assert change_line(StateChange(0, WELL)) == f"{where}ok"
    assert change_line(StateChange(0, WELL, Condition.ERRORS)) == f"{where}ok, was errors"
    assert change_line(StateChange(0, SICK, Condition.ERRORS)) == (
        f"{where}errors; the superblock has errors on record; 2 errors, "
        "the first 1971-01-01 00:00:00 at ext4_lookup:1700 EFSCORRUPTED ino 12; "
        "the last 1971-01-01 00:00:00 at ext4_lookup:1700 EFSCORRUPTED block 99"
    )


def test_a_file_system_without_mount_point_has_a_line() -> None:
    nowhere = WELL._replace(mount_points=())
    assert "state of no mount point (ext4 on " in change_line(StateChange(0, nowhere))
